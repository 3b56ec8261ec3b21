package attach_test

import (
	"context"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// hangingUp is a store whose caller hangs up when a release begins.
type hangingUp struct {
	ipam.Store
	hangUp func()
}

func (h hangingUp) Release(ctx context.Context, pool string, o ipam.Owner, quarantine time.Duration) error {
	h.hangUp()
	return h.Store.Release(ctx, pool, o, quarantine)
}

// TestHangUpDuringDetach checks that a caller that hangs up during a detach leaves no record and no
// lease to the process, which may be a service that runs for months.
func TestHangUpDuringDetach(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	before := w.Links(w.Host)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	must(t, c.Kill())
	c.Reap()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		ctx, hangUp := context.WithCancel(ctx)
		defer hangUp()
		l.Leases.Own = hangingUp{l.Leases.Own, hangUp}
		return l.Detach(ctx, "c1")
	}))
	w.WantNothing("web", before)
}
