package attach_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
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

// losing is a database that loses its first transaction without an error, as a damaged file does. It
// calls lose when the file is moved aside.
type losing struct {
	record.DB
	once *sync.Once
	lose func()
}

func (d losing) MoveAside(ctx context.Context) (string, error) {
	d.lose()
	return d.DB.MoveAside(ctx)
}

func (d losing) Update(ctx context.Context, f func(record.Tx) error) error {
	return d.DB.Update(ctx, func(tx record.Tx) error {
		err := f(tx)
		if err == nil {
			d.once.Do(func() { err = ipam.ErrCorrupt })
		}
		return err
	})
}

// TestJoinedAfterDamage checks that a container is attached that has joined an attachment in a database
// which is then found to be damaged, and has no interface that could be restored.
func TestJoinedAfterDamage(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.DB = losing{l.DB, new(sync.Once), func() {
			hooklab.IP(t, c.Namespace, "link del eth0")
			w.LoseDatabase(false)
		}}
		_, err := l.Attach(ctx, hook.Request{Container: "c2", Pid: c.Pid, Wants: []hook.Want{{Network: "web"}}})
		return err
	}))
	if a := w.Record(); a.State != hook.Attached || len(a.Containers) != 1 || a.Containers[0].ID != "c2" {
		t.Errorf("the record is %+v", a)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}

// TestJoinDropsExited checks that containers that have exited without poststop do not stay in the
// attachment that others join.
func TestJoinDropsExited(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	crashed := testenv.JoinNamespace(t, c.Namespace)
	w.MustAttach("c2", crashed, "network=web")
	must(t, crashed.Kill())
	w.MustAttach("c3", testenv.JoinNamespace(t, c.Namespace), "network=web")
	if got := record.Users(w.Records()); got != `container "c1", container "c3"` {
		t.Errorf("it is held by %s", got)
	}
	w.MustDetach("c2") // its poststop comes late
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
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
