// Package storetest is the test suite that every [ipam.Store] passes. It tests what the comments of
// the interface say.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lanyard-net/lanyard/ipam"
)

// Run runs the suite. open returns a store that is empty, or has at least pools separate from those
// of the other tests, and that gets the time from now.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) ipam.Store) {
	for _, group := range [][]test{claims, nexts, ends, whole} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				clock := &clock{now: time.Date(2024, 2, 29, 23, 59, 30, 0, time.UTC)}
				c.run(&store{T: t, clock: clock, Store: open(t, clock.Now), pool: "web50/192.168.50.0/24"})
			})
		}
	}
}

type test struct {
	name string
	run  func(*store)
}

// clock is a clock that stands still until move is called.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// store is a store under test, with one of its pools.
type store struct {
	*testing.T
	*clock
	ipam.Store
	pool string
}

// lease is the lease that the attachment id, of the container "c"+id, asks for.
func lease(id string) ipam.Lease {
	return ipam.Lease{Owner: ipam.Owner{Attachment: id, Network: "web50", Interface: "eth0"}, Name: "c" + id,
		MAC: "02:42:c0:a8:32:09"}
}

func leaseOf(id, addr string) ipam.Lease {
	l := lease(id)
	l.Addr = netip.MustParseAddr(addr)
	return l
}

// pool returns a pool of a subnet. rest are its ranges, and "address=purpose" for reserved
// addresses.
func pool(subnet string, rest ...string) ipam.Pool {
	p := ipam.Pool{Subnet: netip.MustParsePrefix(subnet), Reserved: map[netip.Addr]string{}}
	for _, s := range rest {
		if a, why, ok := strings.Cut(s, "="); ok {
			p.Reserved[netip.MustParseAddr(a)] = why
		} else {
			p.Ranges = append(p.Ranges, netip.MustParsePrefix(s))
		}
	}
	return p
}

func (s *store) mustClaim(id, addr string) {
	s.Helper()
	if err := s.Claim(s.Context(), s.pool, leaseOf(id, addr)); err != nil {
		s.Fatalf("claim %s for %s: %v", addr, id, err)
	}
}

// wantTaken checks that l is refused with an error that contains all words.
func (s *store) wantTaken(l ipam.Lease, words ...string) {
	s.Helper()
	err := s.Claim(s.Context(), s.pool, l)
	if !errors.Is(err, ipam.ErrTaken) {
		s.Fatalf("claim %s for %s: got %v, want ErrTaken", l.Addr, l.Owner.Attachment, err)
	}
	wantWords(s, err, append(words, l.Addr.String())...)
}

func wantWords(t testing.TB, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has several lines", err)
	}
}

func (s *store) mustNext(p ipam.Pool, l ipam.Lease) string {
	s.Helper()
	a, err := s.Next(s.Context(), s.pool, p, l)
	if err != nil {
		s.Fatalf("next of %s for %s: %v", p, l.Owner.Attachment, err)
	}
	return a.String()
}

func (s *store) wantNext(p ipam.Pool, l ipam.Lease, want string) {
	s.Helper()
	if got := s.mustNext(p, l); got != want {
		s.Fatalf("next of %s for %s: got %s, want %s", p, l.Owner.Attachment, got, want)
	}
}

// wantFull checks that no address is free, and that the error contains these counts.
func (s *store) wantFull(p ipam.Pool, held, quarantined, declined int) {
	s.Helper()
	a, err := s.Next(s.Context(), s.pool, p, lease("one-too-many"))
	if !errors.Is(err, ipam.ErrPoolFull) {
		s.Fatalf("next of %s: got %s, %v; want ErrPoolFull", p, a, err)
	}
	wantWords(s, err, p.Subnet.String(),
		fmt.Sprintf("%d held, %d in quarantine, %d held by other stations", held, quarantined, declined))
}

func (s *store) mustRelease(id string, quarantine time.Duration) {
	s.Helper()
	if err := s.Release(s.Context(), s.pool, lease(id).Owner, quarantine); err != nil {
		s.Fatalf("release %s: %v", id, err)
	}
}

func (s *store) mustDecline(id, addr string, d time.Duration) {
	s.Helper()
	if err := s.Decline(s.Context(), s.pool, netip.MustParseAddr(addr), lease(id).Owner, d); err != nil {
		s.Fatalf("decline %s of %s: %v", addr, id, err)
	}
}

// want checks that the pool has these leases, in this order, and the counts match them.
func (s *store) want(want ...ipam.Lease) {
	s.Helper()
	got, err := s.Leases(s.Context(), s.pool)
	if err != nil {
		s.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	host := cmpopts.IgnoreFields(ipam.Lease{}, "Host")
	if diff := cmp.Diff(want, got, same, host, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0)); diff != "" {
		s.Fatalf("leases (-want +got):\n%s", diff)
	}
	var counts ipam.Counts
	for _, l := range want {
		counts.Add(l.State, 1)
	}
	if got, err := s.Count(s.Context(), s.pool); err != nil || got != counts {
		s.Fatalf("count: got %+v, %v; want %+v", got, err, counts)
	}
}

func in(state ipam.State, l ipam.Lease, until time.Time) ipam.Lease {
	l.State, l.Until = state, until
	return l
}

func held(id, addr string) ipam.Lease { return in(ipam.Held, leaseOf(id, addr), time.Time{}) }

// cancelled returns a context that is cancelled.
func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
