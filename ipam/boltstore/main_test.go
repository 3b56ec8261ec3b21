package boltstore_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// The tests run the test binary itself as other processes: envRole is the role of such a process,
// envPath its file, envName its name.
const (
	envRole = "BOLTSTORE_TEST_ROLE"
	envPath = "BOLTSTORE_TEST_PATH"
	envName = "BOLTSTORE_TEST_NAME"
)

var roles = map[string]func(db *boltstore.DB, name string) error{
	"claim":         claimSome,
	"churn":         churn,
	"hog":           hog,
	"once":          claimOnce,
	"claim address": claimAddr,
	"weigh":         weigh,
	"remake":        remake,
	"full":          func(db *boltstore.DB, fresh string) error { return fullDisk(db, os.Getenv(envPath), fresh) },
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(envRole)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(boltstore.Open(os.Getenv(envPath)), os.Getenv(envName)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(role, path, name string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), envRole+"="+role, envPath+"="+path, envName+"="+name)
	c.Stderr = os.Stderr
	return c
}

const poolName = "web50/10.32.0.0/12"

var pool12 = ipam.Pool{Subnet: netip.MustParsePrefix("10.32.0.0/12")}

func lease(attachment string) ipam.Lease {
	return ipam.Lease{Owner: ipam.Owner{Attachment: attachment, Network: "web50", Interface: "eth0"},
		Name: "c" + attachment}
}

func tempDB(tb testing.TB) (*boltstore.DB, string) {
	path := filepath.Join(tb.TempDir(), "lanyard.db")
	return boltstore.Open(path), path
}

func mustNext(tb testing.TB, db *boltstore.DB, attachment string) netip.Addr {
	tb.Helper()
	a, err := db.Next(tb.Context(), poolName, pool12, lease(attachment))
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func mustLeases(tb testing.TB, db *boltstore.DB) []ipam.Lease {
	tb.Helper()
	leases, err := db.Leases(tb.Context(), poolName)
	if err != nil {
		tb.Fatal(err)
	}
	return leases
}

// mustCheck checks a whole file, see [boltstore.Check].
func mustCheck(tb testing.TB, path string) {
	tb.Helper()
	if err := boltstore.Check(path); err != nil {
		tb.Fatal(err)
	}
}

func claimOnce(db *boltstore.DB, name string) error {
	_, err := db.Next(context.Background(), poolName, pool12, lease(name))
	return err
}
