package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/testenv"
)

// sharedFile is the environment variable with the file of the store that the hosts of a test share.
// A store of another file than that of the records may be called only as one over the network.
const sharedFile = "LANYARD_TEST_SHARED"

// openSharedForTest opens the store of sharedFile for the processes of a test.
func openSharedForTest(p wiring.Paths) (ipam.Store, error) {
	path := os.Getenv(sharedFile)
	if path == "" {
		return nil, errors.New("the test has no shared store")
	}
	if _, err := os.Stat(path + ".down"); err == nil {
		return nil, errors.New("out of reach")
	}
	return unlocked{boltstore.Open(path), filepath.Join(p.Run, "lanyard.db")}, nil
}

// unlocked is a store whose methods return an error if the record database is locked when they are
// called.
type unlocked struct {
	ipam.Store
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
	return errors.Join(u.check(), u.Store.Claim(ctx, pool, l))
}

func (u unlocked) Next(ctx context.Context, pool string, p ipam.Pool, l ipam.Lease) (netip.Addr, error) {
	if err := u.check(); err != nil {
		return netip.Addr{}, err
	}
	return u.Store.Next(ctx, pool, p, l)
}

func (u unlocked) Release(ctx context.Context, pool string, o ipam.Owner, quarantine time.Duration) error {
	return errors.Join(u.check(), u.Store.Release(ctx, pool, o, quarantine))
}

func (u unlocked) Decline(ctx context.Context, pool string, a netip.Addr, o ipam.Owner, d time.Duration) error {
	return errors.Join(u.check(), u.Store.Decline(ctx, pool, a, o, d))
}

func (u unlocked) Leases(ctx context.Context, pool string) ([]ipam.Lease, error) {
	if err := u.check(); err != nil {
		return nil, err
	}
	return u.Store.Leases(ctx, pool)
}

func (u unlocked) Count(ctx context.Context, pool string) (ipam.Counts, error) {
	if err := u.check(); err != nil {
		return ipam.Counts{}, err
	}
	return u.Store.Count(ctx, pool)
}

func (u unlocked) RemovePool(context.Context, ...string) error {
	return errors.New("a pool that hosts share is removed")
}

// shared is a network's definition with leases in the shared store.
func shared(d *network.Definition) { d.Leases, d.Quarantine = network.LeasesEtcd, 0 }

// useShared gives the test a shared store. It returns a function that puts it out of reach or back.
func useShared(t *testing.T) (reach func(bool)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shared.db")
	t.Setenv(sharedFile, path)
	return func(up bool) {
		t.Helper()
		if up {
			must(t, os.Remove(path+".down"))
		} else {
			must(t, os.WriteFile(path+".down", nil, 0o600))
		}
	}
}

// queued returns the number of releases that wait on the host.
func (w *world) queued() (n int) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
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
	useShared(t)
	w, _ := lan(t, shared)
	before := w.links(w.Host)
	w.AddGateway(0, "192.168.50.2/24") // a claimant of the first candidate
	c, named := testenv.NewContainer(t), testenv.NewContainer(t)
	w.mustAttach("c1", c, "network=web")
	w.mustAttach("c2", named, "network=web", "ip=192.168.50.9")
	if got := w.held("web"); got != 4 {
		t.Errorf("%d leases, want 4", got)
	}
	for _, a := range w.records() {
		if a.Leases != network.LeasesEtcd || slices.Contains(addresses(a), "192.168.50.2") {
			t.Errorf("the record is %+v", a)
		}
	}
	w.lose(false)
	if got := len(w.records()); got != 2 || w.held("web") != 4 {
		t.Errorf("after the database was lost: %d records, %d leases", got, w.held("web"))
	}
	w.detachAndEnd(t, "c1", c)
	w.detachAndEnd(t, "c2", named)
	sweep(t, w) // rebuilt records name no container
	w.wantNothing("web", before)
	w.removeNetwork("web")
}

// TestReleasesWait checks that the end of a container needs no shared store: the release waits, and
// is delivered by the next sweep.
func TestReleasesWait(t *testing.T) {
	reach := useShared(t)
	w, _ := lan(t, shared)
	before := w.links(w.Host)
	var ending []*testenv.Container
	for i := range 3 {
		c := testenv.NewContainer(t)
		w.mustAttach(fmt.Sprint("c", i), c, "network=web")
		ending = append(ending, c)
	}
	running := testenv.NewContainer(t)
	w.mustAttach("running", running, "network=web")
	reach(false)
	for i, c := range ending {
		w.detachAndEnd(t, fmt.Sprint("c", i), c)
	}
	w.refused("an attach", w.attach("new", testenv.NewContainer(t), "network=web"), 1, `network "web"`, "out of reach")
	err := w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	})
	if err == nil || len(w.records()) != 1 || w.queued() != 3 {
		t.Errorf("a sweep: %v, %d records, %d releases wait", err, len(w.records()), w.queued())
	}
	pings(t, running.Namespace, "192.168.50.1")
	reach(true)
	sweep(t, w)
	if w.held("web") != 2 || w.queued() != 0 {
		t.Errorf("%d leases, %d releases wait", w.held("web"), w.queued())
	}
	w.detachAndEnd(t, "running", running)
	if w.queued() != 0 {
		t.Error("the release waits although the store is in reach")
	}
	w.wantNothing("web", before)
}
