package attach_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// stalling is a datapath that stalls, calls meanwhile and then fails, at an endpoint in a subnet.
type stalling struct {
	verify.Datapath
	subnet    netip.Prefix
	meanwhile func()
}

func (s stalling) Expect(e verify.Endpoint) error {
	if slices.ContainsFunc(e.Addrs, s.subnet.Contains) {
		s.meanwhile()
		return errors.New("stalled")
	}
	return s.Datapath.Expect(e)
}

// TestJoinedBeforeUndo checks that a process does not undo an attachment that another process has
// joined for the same container since: a hook gives up a service that stalls, and attaches itself.
func TestJoinedBeforeUndo(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	before := w.Links(w.Host)
	db := netip.MustParsePrefix("192.168.60.0/24")
	w.Define("db", w.Trunk, func(d *network.Definition) { d.ShareParent, d.Verify = true, verify.Off }, db.String())
	c := testenv.NewContainer(t)
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.Datapath = stalling{l.Datapath, db, func() { w.MustAttach("c1", c, "network=web") }}
		_, err := l.Attach(ctx, hook.Request{Container: "c1", Pid: c.Pid, Wants: []hook.Want{
			{Network: "web", Interface: "eth0"}, {Network: "db", Interface: "eth1"},
		}})
		return err
	})
	if err == nil {
		t.Error("the attach has not failed")
	}
	if a := w.Record(); a.Network != "web" || len(a.Containers) != 1 {
		t.Errorf("the record is %+v", a)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	must(t, c.Kill())
	c.Reap()
	w.MustDetach("c1")
	w.WantNothing("web", before)
}
