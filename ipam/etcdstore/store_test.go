//go:build !vm

package etcdstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/ipam/storetest"
	"github.com/lanyard-net/lanyard/testenv"
)

// mustOpen opens the store as a host does, without a session.
func mustOpen(t testing.TB, c etcdstore.Config, host string) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.Open(c, etcdstore.Host{ID: host, Name: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// keep keeps the session of a host, and returns when it has begun. The returned function ends its
// keeping.
func keep(t testing.TB, s *etcdstore.Store, renew func(context.Context, ipam.Shared) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Keep(ctx, slog.New(slog.DiscardHandler), renew) })
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	testenv.Eventually(t, "a session", func() error { return s.CheckSession(ctx) })
	return stop
}

func nothing(context.Context, ipam.Shared) error { return nil }

// TestStore runs the suite with one host, and with calls that go to four hosts in turn: what one of
// them does, the others must see at once.
func TestStore(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	var tests atomic.Int32
	for _, hosts := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d hosts", hosts), func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T, now func() time.Time) ipam.Store {
				c := etcdstore.Config{Endpoints: []string{e.Endpoint}, Prefix: fmt.Sprintf("/test%d/", tests.Add(1))}
				all := &inTurn{}
				for i := range hosts {
					s := mustOpen(t, c, fmt.Sprint("host", i))
					s.Now = now
					keep(t, s, nothing)
					all.stores = append(all.stores, s)
				}
				return all
			})
		})
	}
}

// TestDeletedLease checks that a lease that was deleted by hand neither prevents what its owner does
// next, nor lets it end the lease of the one that has got the address since.
func TestDeletedLease(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	c := etcdstore.Config{Endpoints: []string{e.Endpoint}}
	a, b := mustOpen(t, c, "a"), mustOpen(t, c, "b")
	keep(t, a, nothing)
	keep(t, b, nothing)
	released, again, confirms := lease("1", "192.168.50.9"), lease("2", "192.168.50.10"), lease("3", "192.168.50.11")
	for _, l := range []ipam.Lease{released, again, confirms} {
		mustClaim(t, a, l)
	}
	e.Ctl("del", "--prefix", "/lanyard/held/")
	others := []ipam.Lease{lease("4", "192.168.50.9"), lease("5", "192.168.50.10"), lease("6", "192.168.50.11")}
	for _, l := range others {
		mustClaim(t, b, l)
	}
	if err := a.Release(t.Context(), pool, released.Owner, 0); err != nil {
		t.Error(err)
	}
	again.Addr = netip.Addr{}
	in := ipam.Pool{Subnet: netip.MustParsePrefix("192.168.50.0/28")}
	if got, err := a.Next(t.Context(), pool, in, again); err != nil || got.String() != "192.168.50.1" {
		t.Errorf("the next address is %s, %v", got, err)
	}
	confirms.Addr = netip.MustParseAddr("192.168.50.12")
	if err := a.Confirm(t.Context(), pool, confirms); err != nil {
		t.Error(err)
	}
	for _, l := range others {
		if host := holders(t, a)[l.Addr.String()]; host != "b" {
			t.Errorf("%s is held by host %q", l.Addr, host)
		}
	}
	for _, o := range []ipam.Owner{again.Owner, confirms.Owner} {
		if err := a.Release(t.Context(), pool, o, 0); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(e.Ctl("get", "--prefix", "--keys-only", "/lanyard/owner/"), "/lanyard/"); n != len(others) {
		t.Errorf("%d keys of owners are left, want %d", n, len(others))
	}
}

// claimsVar is the environment variable with the number of claims of TestManyHosts.
const claimsVar = "LANYARD_LEASES_CLAIMS"

// TestManyHosts checks that 16 hosts that claim at the same time all get addresses, each another one.
func TestManyHosts(t *testing.T) {
	t.Parallel()
	const hosts = 16
	claims := 320
	if n, err := strconv.Atoi(os.Getenv(claimsVar)); err == nil {
		claims = n
	}
	e := testenv.StartEtcd(t)
	in := ipam.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/16")}
	var stores []*etcdstore.Store
	for i := range hosts {
		s := mustOpen(t, etcdstore.Config{Endpoints: []string{e.Endpoint}}, fmt.Sprint("host", i))
		keep(t, s, nothing)
		stores = append(stores, s)
	}
	began := time.Now()
	var next atomic.Int32
	var all sync.WaitGroup
	for _, s := range stores {
		all.Go(func() {
			for n := next.Add(1); int(n) <= claims; n = next.Add(1) {
				l := ipam.Lease{Owner: ipam.Owner{Attachment: fmt.Sprint(n), Network: "web", Interface: "eth0"}}
				_, err := s.Next(t.Context(), pool, in, l)
				if err != nil { // a busy machine: any method may be called again
					t.Log(err)
					_, err = s.Next(t.Context(), pool, in, l)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d claims by %d hosts in %s", claims, hosts, time.Since(began).Round(time.Millisecond))
	list, err := stores[0].Leases(t.Context(), pool)
	owners := map[ipam.Owner]bool{}
	for _, l := range list {
		owners[l.Owner] = true
	}
	if err != nil || len(list) != claims || len(owners) != claims {
		t.Fatalf("%d leases of %d owners, want %d, %v", len(list), len(owners), claims, err)
	}
}

// inTurn calls one of its stores after the other.
type inTurn struct {
	stores []ipam.Store
	calls  atomic.Uint32
}

func (s *inTurn) store() ipam.Store { return s.stores[int(s.calls.Add(1))%len(s.stores)] }

func (s *inTurn) Claim(ctx context.Context, pool string, l ipam.Lease) error {
	return s.store().Claim(ctx, pool, l)
}

func (s *inTurn) Next(ctx context.Context, pool string, p ipam.Pool, l ipam.Lease) (netip.Addr, error) {
	return s.store().Next(ctx, pool, p, l)
}

func (s *inTurn) Release(ctx context.Context, pool string, o ipam.Owner, quarantine time.Duration) error {
	return s.store().Release(ctx, pool, o, quarantine)
}

func (s *inTurn) Decline(ctx context.Context, pool string, a netip.Addr, o ipam.Owner, d time.Duration) error {
	return s.store().Decline(ctx, pool, a, o, d)
}

func (s *inTurn) Leases(ctx context.Context, pool string) ([]ipam.Lease, error) {
	return s.store().Leases(ctx, pool)
}

func (s *inTurn) Count(ctx context.Context, pool string) (ipam.Counts, error) {
	return s.store().Count(ctx, pool)
}

func (s *inTurn) RemovePool(ctx context.Context, pools ...string) error {
	return s.store().RemovePool(ctx, pools...)
}
