package attach_test

import (
	"context"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

func TestMain(m *testing.M) {
	wiring.RegisterLeases(network.LeasesEtcd, openUnlocked)
	hooklab.Main(m)
}

// world is a lab with methods of this package's tests.
type world struct{ *hooklab.Lab }

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	return &world{hooklab.New(tb, c)}
}

// lan is a lab with one network without tags on its trunk, "web", for both families.
func lan(t *testing.T, edit func(*network.Definition)) (*world, *testenv.Station) {
	t.Helper()
	w, gw := hooklab.NewLAN(t, edit)
	return &world{w}, gw
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func sweep(t *testing.T, w *world) {
	t.Helper()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	}))
}
