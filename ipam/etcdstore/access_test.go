//go:build !vm

package etcdstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
)

// authority writes a certificate authority and a certificate by it to a directory.
func authority(t *testing.T) testenv.EtcdTLS {
	t.Helper()
	dir := t.TempDir()
	files := testenv.EtcdTLS{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	}
	issue(t, files)
	return files
}

// issue writes a new authority and a new certificate by it to the files.
func issue(t *testing.T, files testenv.EtcdTLS) {
	t.Helper()
	caKey, key := newKey(t), newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:    []string{"client"}, // the socket's name
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	write(t, files.CA, "CERTIFICATE", sign(t, ca, ca, caKey, caKey))
	write(t, files.Cert, "CERTIFICATE", sign(t, leaf, ca, key, caKey))
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, files.Key, "EC PRIVATE KEY", der)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, c, by *x509.Certificate, key, with *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func write(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// check opens the store and checks it, and returns what was wrong.
func check(t *testing.T, c etcdstore.Config) (members []etcdstore.Member, err error) {
	t.Helper()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s, err := etcdstore.Open(c, etcdstore.Host{ID: "a", Name: "a"})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Check(t.Context())
}

// wantRefused checks that a configuration does not work, for a reason in one line.
func wantRefused(t *testing.T, what string, c etcdstore.Config, words ...string) {
	t.Helper()
	members, err := check(t, c)
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v, %+v", what, err, members)
		return
	}
	t.Logf("%s: %v", what, err)
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %q lacks %q", what, err, w)
		}
	}
}

// TestTLS checks that TLS with certificates of both sides works, and what is said if one is wrong.
func TestTLS(t *testing.T) {
	t.Parallel()
	files, foreign := authority(t), authority(t)
	e := testenv.StartEtcdTLS(t, files)
	c := etcdstore.Config{Endpoints: []string{e.Endpoint}, CA: files.CA, Cert: files.Cert, Key: files.Key}
	members, err := check(t, c)
	if err != nil || len(members) != 1 || !members[0].Leader || members[0].Version == "" || members[0].Error != "" {
		t.Fatalf("%v, %+v", err, members)
	}
	keep(t, mustOpen(t, c, "a"), nothing)
	var all sync.WaitGroup // each takes as long as a method waits for an answer
	for what, wrong := range map[string]struct {
		ca, cert, key string
		words         []string
	}{
		"another authority":                  {foreign.CA, files.Cert, files.Key, []string{e.Endpoint, "certificate"}},
		"a certificate of another authority": {files.CA, foreign.Cert, foreign.Key, []string{e.Endpoint}},
		"no certificate":                     {files.CA, "", "", []string{e.Endpoint}},
		"the key of another certificate":     {files.CA, files.Cert, foreign.Key, []string{"cert, key"}},
		"no authority in the file":           {files.Key, files.Cert, files.Key, []string{"ca: ", files.Key}},
	} {
		other := c
		other.CA, other.Cert, other.Key = wrong.ca, wrong.cert, wrong.key
		all.Go(func() { wantRefused(t, what, other, wrong.words...) })
	}
	all.Wait()
}

// TestRenewedCertificates checks that a store that is open uses the files of TLS that replace earlier
// ones: certificates expire, and a service runs for longer.
func TestRenewedCertificates(t *testing.T) {
	t.Parallel()
	files := authority(t)
	e := testenv.StartEtcdTLS(t, files)
	c := etcdstore.Config{Endpoints: []string{e.Endpoint}, CA: files.CA, Cert: files.Cert, Key: files.Key}
	a := mustOpen(t, c, "a")
	keep(t, a, nothing)
	mustClaim(t, a, lease("1", "192.168.50.9"))
	e.Kill()
	issue(t, files)
	e.Start()
	testenv.Eventually(t, "a claim with the new certificates", func() error {
		return a.Claim(t.Context(), pool, lease("2", "192.168.50.10"))
	})
}

// TestUser checks that a user with rights below the prefix suffices for all methods, and what is
// said about a wrong user, password or prefix.
func TestUser(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	for _, args := range []string{
		"user add root:rootpw", "user grant-role root root", "user add lan:secret", "role add lanyard",
		"role grant-permission --prefix=true lanyard readwrite /lanyard/", "user grant-role lan lanyard", "auth enable",
	} {
		e.Ctl(strings.Fields(args)...)
	}
	c := etcdstore.Config{Endpoints: []string{e.Endpoint}, User: "lan", Password: "secret", TTL: "2s"}
	if members, err := check(t, c); err != nil {
		t.Fatalf("%v, %+v", err, members)
	}
	a := mustOpen(t, c, "a")
	keep(t, a, nothing)
	mustClaim(t, a, lease("1", "192.168.50.9"))
	if err := a.Release(t.Context(), pool, lease("1", "192.168.50.9").Owner, time.Millisecond); err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, "a tidy cluster", func() error {
		if rows := e.Ctl("--user", "root:rootpw", "get", "--prefix", "--keys-only", "/lanyard/idle/"); rows != "" {
			return errors.New(rows)
		}
		return nil
	})
	wrong := c
	wrong.Password = "guess"
	wantRefused(t, "a wrong password", wrong, `user "lan"`, "password")
	wrong = c
	wrong.Prefix = "/other/"
	wantRefused(t, "another prefix", wrong, `user "lan"`, `"/other/"`)
	wrong.User, wrong.Password = "", ""
	wantRefused(t, "no user", wrong, `set "user"`)
}

// TestTwoClusters checks that endpoints of different clusters are found.
func TestTwoClusters(t *testing.T) {
	t.Parallel()
	one, other := testenv.StartEtcd(t), testenv.StartEtcd(t)
	c := etcdstore.Config{Endpoints: []string{one.Endpoint, other.Endpoint}}
	wantRefused(t, "two clusters", c, "2 clusters")
	other.Kill()
	members, err := check(t, c)
	if err != nil || len(members) != 2 || members[0].Error != "" ||
		!strings.Contains(members[1].Error, "connection refused") {
		t.Errorf("one of two endpoints: %v, %+v", err, members)
	}
}
