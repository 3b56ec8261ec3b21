package attach_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/leases"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// openUnlocked opens the store of a host that shares leases, for the processes of a test.
func openUnlocked(p wiring.Paths) (ipam.Shared, error) {
	store, err := leases.OpenEtcd(p)
	return unlocked{store, filepath.Join(p.Run, "lanyard.db")}, err
}

// unlocked is a store whose methods return an error if the record database is locked when they are
// called.
type unlocked struct {
	ipam.Shared
	records string
}

// check visits the record database as another process does.
func (u unlocked) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := boltstore.Open(u.records).View(ctx, func(*boltstore.Tx) error { return nil }); err != nil {
		return fmt.Errorf("a shared store is called while the records are locked: %w", err)
	}
	return nil
}

func (u unlocked) Claim(ctx context.Context, pool string, l ipam.Lease) error {
	return errors.Join(u.check(), u.Shared.Claim(ctx, pool, l))
}

func (u unlocked) Next(ctx context.Context, pool string, p ipam.Pool, l ipam.Lease) (netip.Addr, error) {
	if err := u.check(); err != nil {
		return netip.Addr{}, err
	}
	return u.Shared.Next(ctx, pool, p, l)
}

func (u unlocked) Release(ctx context.Context, pool string, o ipam.Owner, quarantine time.Duration) error {
	return errors.Join(u.check(), u.Shared.Release(ctx, pool, o, quarantine))
}

func (u unlocked) Decline(ctx context.Context, pool string, a netip.Addr, o ipam.Owner, d time.Duration) error {
	return errors.Join(u.check(), u.Shared.Decline(ctx, pool, a, o, d))
}

func (u unlocked) Leases(ctx context.Context, pool string) ([]ipam.Lease, error) {
	if err := u.check(); err != nil {
		return nil, err
	}
	return u.Shared.Leases(ctx, pool)
}

func (u unlocked) Count(ctx context.Context, pool string) (ipam.Counts, error) {
	if err := u.check(); err != nil {
		return ipam.Counts{}, err
	}
	return u.Shared.Count(ctx, pool)
}

func (u unlocked) Reserve(ctx context.Context, pool string, ranges []netip.Prefix) (ipam.Share, error) {
	if err := u.check(); err != nil {
		return ipam.Share{}, err
	}
	return u.Shared.Reserve(ctx, pool, ranges)
}

func (u unlocked) Confirm(ctx context.Context, pool string, l ipam.Lease) error {
	return errors.Join(u.check(), u.Shared.Confirm(ctx, pool, l))
}

func (u unlocked) GiveBack(ctx context.Context, r ipam.Reserved) error {
	return errors.Join(u.check(), u.Shared.GiveBack(ctx, r))
}

func (u unlocked) RemovePool(context.Context, ...string) error {
	return errors.New("a pool that hosts share is removed")
}

// lanShared is lan with leases in a cluster of one server. keepSession begins the host's session.
func lanShared(t *testing.T, ttl string) (*world, *testenv.Etcd) {
	t.Helper()
	return lanSharedWith(t, ttl, func(*network.Definition) {})
}

// lanSharedWith is lanShared with an edited definition.
func lanSharedWith(t *testing.T, ttl string, edit func(*network.Definition)) (*world, *testenv.Etcd) {
	t.Helper()
	w, e := newWorld(t, testenv.Config{}), testenv.StartEtcd(t)
	w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	must(t, os.MkdirAll(w.Root, 0o755))
	w.useEtcd(e.Endpoint, ttl)
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Leases, d.Quarantine = network.LeasesEtcd, 0
		edit(d)
	}, "192.168.50.0/24", "fd50::/64")
	return w, e
}

// useEtcd writes the host's configuration of the store.
func (w *world) useEtcd(endpoint, ttl string) {
	w.TB.Helper()
	config := fmt.Appendf(nil, `{"endpoints": [%q], "ttl": %q}`, endpoint, ttl)
	must(w.TB, os.WriteFile(w.Paths().Leases, config, 0o600))
}

// keepSession keeps the host's session as "lanyard serve" does, and returns when it has begun. The
// returned function ends its keeping.
func (w *world) keepSession(t *testing.T) (stop func()) {
	t.Helper()
	store, err := leases.OpenEtcd(w.Paths())
	must(t, err)
	l, err := wiring.Open(w.Paths())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		store.Keep(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context, in ipam.Shared) error {
			return l.RenewShared(ctx, network.LeasesEtcd, in)
		})
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		must(t, errors.Join(store.Close(), l.Close()))
	})
	t.Cleanup(stop)
	testenv.Eventually(t, "a session", func() error { return store.CheckSession(ctx) })
	return stop
}

// renew makes the store agree with the host's records, as "lanyard serve" does regularly.
func (w *world) renew() {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		store, err := l.Leases.Shared(network.LeasesEtcd)
		if err != nil {
			return err
		}
		return l.RenewShared(ctx, network.LeasesEtcd, store)
	}))
}

// queued returns the number of releases that wait on the host.
func (w *world) queued() (n int) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		return l.DB.View(ctx, func(tx record.Tx) error {
			list, err := record.Releases(tx, 100)
			n = len(list)
			return err
		})
	}))
	return n
}

// TestSharedStoreIsCalledUnlocked checks that everything that calls a store which hosts share does so
// while the record database is free, from the attach to the removal of the network.
func TestSharedStoreIsCalledUnlocked(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, _ := lanShared(t, "10s")
	w.keepSession(t)
	before := w.Links(w.Host)
	w.AddGateway(0, "192.168.50.2/24") // a claimant of the first candidate
	c, named := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	w.MustAttach("c2", named, "network=web", "ip=192.168.50.9")
	if got := w.Held("web"); got != 4 {
		t.Errorf("%d leases, want 4", got)
	}
	for _, a := range w.Records() {
		if a.Leases != network.LeasesEtcd || slices.Contains(hooklab.Addresses(a), "192.168.50.2") {
			t.Errorf("the record is %+v", a)
		}
	}
	w.LoseDatabase(true) // and with it the ids of the attachments
	w.renew()
	if got := len(w.Records()); got != 2 || w.Held("web") != 4 {
		t.Errorf("after the database was lost: %d records, %d leases", got, w.Held("web"))
	}
	w.DetachAndEnd("c1", c)
	w.DetachAndEnd("c2", named)
	sweep(t, w) // rebuilt records name no container
	w.WantNothing("web", before)
	w.RemoveNetwork("web")
}

// TestReleasesWait checks that the end of a container needs no shared store: the release waits, and
// is delivered by the next sweep.
func TestReleasesWait(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanShared(t, "10s")
	w.keepSession(t)
	before := w.Links(w.Host)
	var ending []*testenv.Container
	for i := range 3 {
		c := testenv.NewContainer(t)
		w.MustAttach(fmt.Sprint("c", i), c, "network=web")
		ending = append(ending, c)
	}
	running := testenv.NewContainer(t)
	w.MustAttach("running", running, "network=web")
	e.Kill()
	for i, c := range ending {
		w.DetachAndEnd(fmt.Sprint("c", i), c)
	}
	w.Refused("an attach", w.Attach("new", testenv.NewContainer(t), "network=web"), 1, `network "web"`, "etcd at unix:",
		"connection refused")
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	})
	// Three of containers, and one of the attach, which cannot know whether it got an address.
	if err == nil || len(w.Records()) != 1 || w.queued() != 4 {
		t.Errorf("a sweep: %v, %d records, %d releases wait", err, len(w.Records()), w.queued())
	}
	hooklab.Pings(t, running.Namespace, "192.168.50.1")
	e.Start()
	sweep(t, w)
	if w.Held("web") != 2 || w.queued() != 0 {
		t.Errorf("%d leases, %d releases wait", w.Held("web"), w.queued())
	}
	w.DetachAndEnd("running", running)
	if w.queued() != 0 {
		t.Error("the release waits although the store is in reach")
	}
	w.WantNothing("web", before)
}

// TestReleaseRefused checks that a release which the store cannot carry out does not keep the addresses
// of containers that end later.
func TestReleaseRefused(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanShared(t, "10s")
	w.keepSession(t)
	before := w.Links(w.Host)
	first, second := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", first, "network=web", "ip=192.168.50.9")
	w.MustAttach("c2", second, "network=web", "ip=192.168.50.10")
	const key = "/lanyard/held/web%2F192.168.50.0%2F24/c0a83209"
	row := strings.TrimSpace(e.Ctl("get", "--print-value-only", key))
	e.Ctl("put", "--ignore-lease", key, "nonsense")
	w.DetachAndEnd("c1", first)
	w.DetachAndEnd("c2", second)
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	})
	rows := strings.Fields(e.Ctl("get", "--prefix", "--keys-only", "/lanyard/held/"))
	if err == nil || !strings.Contains(err.Error(), key) || w.queued() != 1 || len(rows) != 2 {
		t.Errorf("a sweep: %v, %d releases wait, %q are held", err, w.queued(), rows)
	}
	e.Ctl("put", "--ignore-lease", key, row)
	sweep(t, w)
	if w.queued() != 0 {
		t.Errorf("%d releases wait", w.queued())
	}
	w.WantNothing("web", before)
}

// verdictNow returns the code of the only attachment's worst verdict, by "lanyard verify", and what
// "ps" shows of changes.
func (w *world) verdictNow() (code verify.Code, changes []verify.Change) {
	w.TB.Helper()
	a := w.Record()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		verdicts, err := l.Verify(ctx, a)
		code = verify.Worst(verdicts).Code
		all, changesErr := l.Changes([]hook.Attachment{a})
		changes = all[a.ID]
		return errors.Join(err, changesErr)
	}))
	return code, changes
}

// TestLeaseLost checks that a host which comes back after its session has ended learns that another
// host has got the address of a running container, and says so until the address is its own again.
func TestLeaseLost(t *testing.T) {
	testenv.OutsideOfVM(t)
	t.Parallel()
	w, e := lanShared(t, "2s")
	stop := w.keepSession(t)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")
	if code, changes := w.verdictNow(); code != verify.OK || changes != nil {
		t.Errorf("before: %s, %v", code, changes)
	}
	stop()
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
	taken := ipam.Lease{Addr: netip.MustParseAddr("192.168.50.9"), Name: "thief",
		Owner: ipam.Owner{Attachment: "x", Network: "web", Interface: "eth0"}}
	const pool = "web/192.168.50.0/24"
	testenv.Eventually(t, "the end of the session", func() error { return other.Claim(ctx, pool, taken) })

	hooklab.Pings(t, c.Namespace, "192.168.50.1") // its container is untouched
	w.Refused("an attach without a session", w.Attach("c2", testenv.NewContainer(t), "network=web"), 1, "has no session")
	w.keepSession(t)
	code, changes := w.verdictNow()
	if code != verify.LeaseLost || len(changes) != 1 ||
		!strings.Contains(changes[0].Text, `"thief" (attachment x) on host "b"`) {
		t.Errorf("after the loss: %s, %v", code, changes)
	}
	must(t, other.Release(ctx, pool, taken.Owner, 0))
	testenv.Eventually(t, "the renewal", func() error {
		if lost := w.Record().Lost; lost != "" {
			return errors.New(lost)
		}
		return nil
	})
	if code, changes := w.verdictNow(); code != verify.OK || changes != nil {
		t.Errorf("after the renewal: %s, %v", code, changes)
	}
	w.DetachAndEnd("c1", c)
}
