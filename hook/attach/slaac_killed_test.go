//go:build failpoint

package attach_test

import (
	"context"
	"testing"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestSLAACKilled checks that an attach that was killed with an address from a router leaves nothing to
// the next one, and that an interface that is created again has the router's default route again.
func TestSLAACKilled(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	before := w.Links(w.Host)
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	c := testenv.NewContainer(t)
	kill(t, w, c, "slaac")
	w.MustAttach("c1", c, "network=web", "verify=strict")
	hooklab.Pings(t, c.Namespace, "2001:db8:f::9")
	a := w.Record()
	hooklab.IP(t, c.Namespace, "link del eth0")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, a.ID)
		return err
	}))
	hooklab.Pings(t, c.Namespace, "2001:db8:f::9")
	if now := w.now(); len(now.Changes) > 0 || len(now.Auto) != 1 || now.Auto[0].Addr != inPrefix("fd77::/64", a) {
		t.Errorf("the interface that was created again: %+v", now)
	}
	w.DetachAndEnd("c1", c)
	w.WantNothing("web", before)
}
