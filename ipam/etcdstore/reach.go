package etcdstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lanyard-net/lanyard/ipam"
)

// tls returns the TLS settings, nil for connections without TLS.
func (c Config) tls() (*tls.Config, error) {
	if !secure(c.Endpoints[0]) {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s has no certificate in PEM form", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("cert, key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// explain returns an error of the client in one line that names the endpoints.
func (c Config) explain(err error) error {
	where := strings.Join(c.Endpoints, ", ")
	switch {
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("etcd at %s refuses user %q: wrong user or password", where, c.User)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("etcd at %s denies user %q: grant it read and write on prefix %q", where, c.User, c.prefix())
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd at %s wants a user: set \"user\" and \"password\"", where)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd at %s does not answer: %w", where, err)
	case status.Code(err) == codes.Unavailable:
		err = errors.New(strings.TrimPrefix(status.Convert(err).Message(), "connection error: desc = "))
	}
	return fmt.Errorf("etcd at %s: %w", where, err)
}

// dialTimeout limits the search for the reason why no member answers.
const dialTimeout = 500 * time.Millisecond

// unreachable returns the error for a cluster that did not answer within methodTimeout, with the
// reason for each member that does not accept connections. The client's own error has none.
func (c Config) unreachable(err error) error {
	var reasons []string
	for _, e := range c.Endpoints {
		if why := c.dial(e, dialTimeout/time.Duration(len(c.Endpoints))); why != nil {
			reasons = append(reasons, why.Error())
		}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, "it accepts connections, but has no leader or is too slow")
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		reasons = append(reasons, err.Error())
	}
	return &unreachableError{fmt.Sprintf("etcd at %s gives no answer within %s: %s", strings.Join(c.Endpoints, ", "),
		methodTimeout, strings.Join(reasons, "; "))}
}

// unreachableError is ipam.ErrOutOfReach with the reasons.
type unreachableError struct{ text string }

func (e *unreachableError) Error() string { return e.text }
func (*unreachableError) Unwrap() error   { return ipam.ErrOutOfReach }

// dial connects to an endpoint and returns why that failed, or nil.
func (c Config) dial(endpoint string, limit time.Duration) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	kind, address, name := "tcp", u.Host, u.Hostname()
	if u.Host == "" {
		kind, address = "unix", u.Path
		name, _, _ = strings.Cut(path.Base(u.Path), ":") // as etcd's client does
	}
	conn, err := net.DialTimeout(kind, address, limit)
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		return fmt.Errorf("%w: the unit of the service does not allow IP: add a drop-in to lanyard.service.d "+
			"(docs/leases.md)", err)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	secret, err := c.tls()
	if err != nil || secret == nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	secret.ServerName, secret.NextProtos = name, []string{"h2"}
	// A server speaks first (RFC 9113 §3.4), or refuses the client's certificate.
	_, err = tls.Client(conn, secret).Read(make([]byte, 1))
	if err != nil {
		return fmt.Errorf("TLS with %s: %w", endpoint, err)
	}
	return nil
}
