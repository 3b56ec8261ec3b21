package attach_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/leases"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// sliced gives a definition a share for outages of its store.
func sliced(number, hosts int64) func(*network.Definition) {
	return func(d *network.Definition) {
		d.OnOutage, d.HostSlice = network.OnOutageSlice, network.HostSlice{Number: number, Hosts: hosts}
	}
}

// nowhere is an endpoint at which no server listens.
const nowhere = "http://127.0.0.1:1"

// shares returns what the host knows of its shares.
func (w *world) shares() (all []record.Share) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		all, err = l.Shares(ctx)
		return err
	}))
	return all
}

// awaitShares waits until the store has confirmed the host's shares of both subnets.
func (w *world) awaitShares(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "the shares", func() error {
		all := w.shares()
		if len(all) != 2 || !all[0].Confirmed || !all[1].Confirmed {
			return fmt.Errorf("they are %+v", all)
		}
		return nil
	})
}

// ready returns an error if an attach to a network would fail.
func (w *world) ready(name string) error {
	return w.Admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.Ready(ctx, name) })
}

// of returns the record of a container.
func (w *world) of(t *testing.T, container string) hook.Attachment {
	t.Helper()
	for _, a := range w.Records() {
		if slices.ContainsFunc(a.Containers, func(c hook.Container) bool { return c.ID == container }) {
			return a
		}
	}
	t.Fatalf("container %s has no record", container)
	return hook.Attachment{}
}

// TestOutage checks that containers start with addresses of the host's share while etcd is killed, that
// these become ordinary leases when it answers again, and that the release of one that has ended by
// then is delivered.
func TestOutage(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanSharedWith(t, "2s", sliced(2, 8))
	w.keepSession(t)
	w.awaitShares(t)
	before := w.Links(w.Host)
	share := netip.MustParsePrefix("192.168.50.32/27")
	w.AddGateway(0, "192.168.50.32/24") // a claimant of the first candidate
	running, first, named := testenv.NewContainer(t), testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("running", running, "network=web")

	e.Kill()
	must(t, w.ready("web"))
	w.MustAttach("c1", first, "network=web")
	w.MustAttach("c2", named, "network=web", "ip=192.168.50.40")
	w.Refused("an address outside of the share", w.Attach("c3", testenv.NewContainer(t), "network=web", "ip=192.168.50.9"),
		1, "192.168.50.9 is not a free address of this host's share 192.168.50.32/27", "etcd at unix:")
	a := w.of(t, "c1")
	if got := a.Addrs[0].Addr(); got.String() != "192.168.50.33" || len(a.Pending) != 2 || !share.Contains(a.Pending[1]) {
		t.Errorf("c1 has %v, pending %v", a.Addrs, a.Pending)
	}
	if got := w.of(t, "c2"); got.Addrs[0].Addr().String() != "192.168.50.40" || len(got.Pending) != 2 {
		t.Errorf("c2 has %v, pending %v", got.Addrs, got.Pending)
	}
	if got := w.of(t, "running"); len(got.Pending) != 0 {
		t.Errorf("the first container has pending addresses %v", got.Pending)
	}
	for _, c := range []*testenv.Container{running, first, named} {
		hooklab.Pings(t, c.Namespace, "192.168.50.1")
	}
	w.DetachAndEnd("c1", first)
	queued := w.queued() // also that of the refused attach
	if queued == 0 || len(w.Records()) != 2 {
		t.Errorf("%d releases wait, %d records", queued, len(w.Records()))
	}

	e.Start()
	testenv.Eventually(t, "the confirmation", func() error {
		if p := w.of(t, "c2").Pending; len(p) > 0 {
			return fmt.Errorf("pending: %v", p)
		}
		return nil
	})
	sweep(t, w)
	if w.queued() != 0 || w.Held("web") != 4 {
		t.Errorf("%d releases wait, %d leases", w.queued(), w.Held("web"))
	}
	if got := w.of(t, "c2"); got.Lost != "" {
		t.Errorf("c2: %s", got.Lost)
	}
	w.DetachAndEnd("c2", named)
	w.DetachAndEnd("running", running)
	w.WantNothing("web", before)
	w.RemoveNetwork("web")
	rows := strings.TrimSpace(e.Ctl("get", "--prefix", "--keys-only", "/lanyard/share/"))
	if rows != "" || len(w.shares()) != 0 {
		t.Errorf("after the network was removed: %s, %+v", rows, w.shares())
	}
}

// TestShareExhausted checks what is said if the share has no address left, and that the end of a
// container gives its address to the next one. It runs by name: each start waits for the store.
func TestShareExhausted(t *testing.T) {
	testenv.ByName(t)
	t.Parallel()
	w, e := lanSharedWith(t, "10s", sliced(2, 128)) // 192.168.50.2 and .3
	stop := w.keepSession(t)
	w.awaitShares(t)
	stop()
	e.Kill()
	c1, c2 := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", c1, "network=web")
	w.MustAttach("c2", c2, "network=web")
	w.Refused("a third container", w.Attach("c3", testenv.NewContainer(t), "network=web"), 1,
		"no address is free in this host's share 192.168.50.2/31: 2 in use, and etcd at "+e.Endpoint)
	if err := w.ready("web"); !errors.Is(err, ipam.ErrPoolFull) {
		t.Errorf("with a full share, ready: %v", err)
	}
	w.DetachAndEnd("c1", c1)
	w.MustAttach("c4", testenv.NewContainer(t), "network=web")
	if got := w.of(t, "c4").Addrs[0].Addr(); got.String() != "192.168.50.2" {
		t.Errorf("c4 has %s", got)
	}

	// A container ends, and its release is delivered, while the service adds its lease.
	e.Start()
	id, renewed := w.of(t, "c2").ID.String(), make(chan struct{})
	store, err := leases.OpenEtcd(w.Paths())
	must(t, err)
	defer store.Close()
	l, err := wiring.Open(w.Paths())
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		var once sync.Once
		store.Keep(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context, in ipam.Shared) (err error) {
			once.Do(func() {
				defer close(renewed)
				err = l.RenewShared(ctx, network.LeasesEtcd, endsFirst{in, id, sync.OnceFunc(func() {
					w.DetachAndEnd("c2", c2)
					_, err := l.Deliver(ctx)
					must(t, err)
				})})
			})
			return err
		})
	})
	<-renewed
	testenv.Eventually(t, "a session", func() error { return store.CheckSession(ctx) })
	mine, err := store.Mine(t.Context())
	must(t, err)
	for pool, list := range mine {
		for _, lease := range list {
			if lease.Owner.Attachment == id {
				t.Errorf("pool %s has %s for a container that has ended", pool, lease.Addr)
			}
		}
	}
}

// endsFirst is a store in which an attachment ends before its pending address is confirmed.
type endsFirst struct {
	ipam.Shared
	attachment string
	end        func()
}

func (s endsFirst) Confirm(ctx context.Context, pool string, l ipam.Lease) error {
	if l.Owner.Attachment == s.attachment {
		s.end()
	}
	return s.Shared.Confirm(ctx, pool, l)
}

// TestShareNotConfirmed checks that a host does not use a share that the store has not confirmed, or
// has refused.
func TestShareNotConfirmed(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := newWorld(t, testenv.Config{}), testenv.StartEtcd(t)
	must(t, os.MkdirAll(w.Root, 0o755))
	w.useEtcd(nowhere, "10s")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Leases = network.LeasesEtcd
		sliced(2, 8)(d)
	}, "192.168.50.0/24", "fd50::/64")
	w.Refused("before the share is confirmed", w.Attach("c1", testenv.NewContainer(t), "network=web"), 1,
		"and this host has no share of the range: the store has not answered yet")
	w.useEtcd(e.Endpoint, "10s")
	other, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{e.Endpoint}}, etcdstore.Host{ID: "b", Name: "b"})
	must(t, err)
	defer other.Close()
	_, err = other.Reserve(t.Context(), "web/192.168.50.0/24", []netip.Prefix{netip.MustParsePrefix("192.168.50.32/28")})
	must(t, err)
	stop := w.keepSession(t) // the refusal does not prevent the session
	stop()
	w.useEtcd(nowhere, "10s")
	w.Refused("a share that is another host's", w.Attach("c1", testenv.NewContainer(t), "network=web"), 1,
		`this host has no share of the range: host "b" has the share 192.168.50.32/28`)
}

// TestShareElsewhere checks that a host does not use the share of a cluster that leases.json does not name any
// more, until that one has confirmed it.
func TestShareElsewhere(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanSharedWith(t, "10s", sliced(2, 8))
	w.renewShares()
	w.awaitShares(t)
	other := testenv.StartEtcd(t)
	other.Kill()
	w.useEtcd(other.Endpoint, "10s")
	c := testenv.NewContainer(t)
	w.Refused("a share of another cluster", w.Attach("c1", c, "network=web"), 1,
		"this host has no share of the range: the store has not answered since leases.json has other endpoints")
	other.Start()
	w.renewShares()
	other.Kill()
	w.MustAttach("c1", c, "network=web")
	if a := w.of(t, "c1"); len(a.Pending) != 2 {
		t.Errorf("c1 has %v, pending %v", a.Addrs, a.Pending)
	}
	w.DetachAndEnd("c1", c)
	w.useEtcd(e.Endpoint, "10s")
}

// TestShareLost checks that a container with an address of a share that the cluster has lost, and that
// another host has got, is said to have lost it.
func TestShareLost(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanSharedWith(t, "2s", sliced(2, 8))
	stop := w.keepSession(t)
	w.awaitShares(t)
	stop()
	e.Kill()
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	addr := w.of(t, "c1").Addrs[0].Addr()
	if code, changes := w.verdictNow(); code != verify.OK || len(changes) != 1 ||
		!strings.Contains(changes[0].Text, "does not have its address yet") {
		t.Errorf("before: %s, %v", code, changes)
	}
	e.Start()
	e.Ctl("del", "--prefix", "/lanyard/share/")
	other, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{e.Endpoint}}, etcdstore.Host{ID: "b", Name: "b"})
	must(t, err)
	defer other.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		other.Keep(ctx, slog.New(slog.DiscardHandler), func(context.Context, ipam.Shared) error { return nil })
	})
	defer wg.Wait()
	defer cancel()
	taken := ipam.Lease{Addr: addr, Name: "thief", Owner: ipam.Owner{Attachment: "x", Network: "web", Interface: "eth0"}}
	const pool = "web/192.168.50.0/24"
	testenv.Eventually(t, "the claim of another host", func() error { return other.Claim(ctx, pool, taken) })
	w.keepSession(t)
	testenv.Eventually(t, "the loss to be said", func() error {
		code, changes := w.verdictNow()
		if code != verify.LeaseLost || !strings.Contains(changes[0].Text, `on host "b"`) ||
			!strings.Contains(changes[0].Text, "an address of this host's share") {
			return fmt.Errorf("it is %s, %v", code, changes)
		}
		return nil
	})
	must(t, other.Release(ctx, pool, taken.Owner, 0))
	testenv.Eventually(t, "the confirmation", func() error {
		if a := w.Record(); a.Lost != "" || len(a.Pending) > 0 {
			return errors.New(a.Lost)
		}
		return nil
	})
	w.DetachAndEnd("c1", c)
}

// TestShareGivenBack checks that a share that the definition does not ask for any more is given back, but
// not before the store has the addresses that containers got from it.
func TestShareGivenBack(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanSharedWith(t, "10s", sliced(2, 8))
	stop := w.keepSession(t)
	w.awaitShares(t)
	stop()
	e.Kill()
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	e.Start()
	def := w.Definition("web")
	def.OnOutage, def.HostSlice = "", network.HostSlice{}
	must(t, def.Save(w.Paths().Networks))
	rows := func() int { return len(strings.Fields(e.Ctl("get", "--prefix", "--keys-only", "/lanyard/share/"))) }
	w.renewShares()
	if n := rows(); n != 2 {
		t.Errorf("%d shares while addresses are pending", n)
	}
	stop = w.keepSession(t)
	w.renew()
	stop()
	if n := rows(); n != 0 || len(w.shares()) != 0 || len(w.Record().Pending) != 0 {
		t.Errorf("%d shares, %+v, pending %v", n, w.shares(), w.Record().Pending)
	}
	w.DetachAndEnd("c1", c)
}

// renewShares reserves the shares that the definitions ask for, and gives the others back.
func (w *world) renewShares() {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		store, err := l.Leases.Shared(network.LeasesEtcd)
		if err != nil {
			return err
		}
		return l.RenewShares(ctx, network.LeasesEtcd, store)
	}))
}

// TestShareExchanged checks that a host that wants the share of another host gives its own back first: the
// other one may want that.
func TestShareExchanged(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanSharedWith(t, "10s", sliced(2, 8))
	w.renewShares()
	w.awaitShares(t)
	other, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{e.Endpoint}}, etcdstore.Host{ID: "b", Name: "b"})
	must(t, err)
	defer other.Close()
	const pool = "web/192.168.50.0/24"
	second, third := netip.MustParsePrefix("192.168.50.32/27"), netip.MustParsePrefix("192.168.50.64/27")
	_, err = other.Reserve(t.Context(), pool, []netip.Prefix{third})
	must(t, err)
	def := w.Definition("web")
	sliced(3, 8)(def)
	must(t, def.Save(w.Paths().Networks))
	w.renewShares()
	if all := w.shares(); slices.ContainsFunc(all, func(s record.Share) bool { return s.Pool == pool && s.Confirmed }) {
		t.Errorf("with a share of another host: %+v", all)
	}
	_, err = other.Reserve(t.Context(), pool, []netip.Prefix{second})
	must(t, err)
	w.renewShares()
	w.awaitShares(t)
}
