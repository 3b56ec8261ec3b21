package main

import (
	"os"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/leases"
	"github.com/lanyard-net/lanyard/internal/messenger"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

func TestMain(m *testing.M) {
	if hooklab.AsAttach() {
		hooklab.RunHook()
	}
	if hooklab.AsHook() {
		messenger.AttachFile = "/proc/self/exe"
		main()
	}
	leases.Register() // as "lanyard" does, which is the service and the administrator's command
	if root := os.Getenv(asService); root != "" {
		serveForTest(root)
	}
	os.Exit(m.Run())
}

// world is a lab that runs this program as its hook.
type world struct {
	*hooklab.Lab
	tb   testing.TB
	root string
}

func worldOf(l *hooklab.Lab) *world { return &world{l, l.TB, l.Root} }

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	return worldOf(hooklab.New(tb, c))
}

// lan is a lab with one network without tags on its trunk, "web", for both families.
func lan(t *testing.T, edit func(*network.Definition)) (*world, *testenv.Station) {
	t.Helper()
	l, gw := hooklab.NewLAN(t, edit)
	return worldOf(l), gw
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
