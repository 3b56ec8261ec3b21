package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

// goroutines is the number of concurrent callers.
const goroutines = 32

var whole = []test{
	{"many claims of one address: one succeeds", func(s *store) {
		errs := make([]error, goroutines)
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() { errs[i] = s.Claim(s.Context(), s.pool, leaseOf(fmt.Sprint(i), "192.168.50.9")) })
		}
		wg.Wait()
		got := 0
		for _, err := range errs {
			if err == nil {
				got++
			} else if !errors.Is(err, ipam.ErrTaken) {
				s.Error(err)
			}
		}
		if got != 1 {
			s.Fatalf("%d claims succeeded", got)
		}
	}},
	{"many concurrent nexts: each gets its own address", func(s *store) {
		p := pool("192.168.50.0/24")
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				if _, err := s.Next(s.Context(), s.pool, p, lease(fmt.Sprint(i))); err != nil {
					s.Error(err)
				}
			})
		}
		wg.Wait()
		leases, err := s.Leases(s.Context(), s.pool)
		if err != nil || len(leases) != goroutines {
			s.Fatalf("%d leases, %v", len(leases), err)
		}
		owners := map[ipam.Owner]bool{}
		for _, l := range leases {
			if owners[l.Owner] || p.Check(l.Addr) != nil {
				s.Fatalf("got %s of %v, want an address of the pool for a new owner", l.Addr, l.Owner)
			}
			owners[l.Owner] = true
		}
	}},
	{"many concurrent nexts of one owner: it gets one address", func(s *store) {
		got := make([]netip.Addr, goroutines)
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				var err error
				l := leaseOf("a", fmt.Sprint("192.168.50.", 10+i))
				if got[i], err = s.Next(s.Context(), s.pool, pool("192.168.50.0/24"), l); err != nil {
					s.Error(err)
				}
			})
		}
		wg.Wait()
		for _, a := range got {
			if a != got[0] {
				s.Fatalf("one owner got %v", got)
			}
		}
		s.want(held("a", got[0].String()))
	}},
	{"concurrent nexts and releases", func(s *store) {
		p := pool("192.168.50.0/27") // 30 addresses for 32 owners, which hold at most one each
		var mu sync.Mutex
		holder := map[netip.Addr]string{}
		var wg sync.WaitGroup
		for i := range goroutines {
			id := fmt.Sprint(i)
			wg.Go(func() {
				for range 5 {
					a, err := s.Next(s.Context(), s.pool, p, lease(id))
					if errors.Is(err, ipam.ErrPoolFull) {
						continue
					}
					mu.Lock()
					if err != nil || holder[a] != "" {
						s.Errorf("%s got %s, which %q holds; %v", id, a, holder[a], err)
					}
					holder[a] = id
					mu.Unlock()
					runtime.Gosched()
					mu.Lock()
					delete(holder, a) // before the release: after it, another owner may get the address
					mu.Unlock()
					if err := s.Release(s.Context(), s.pool, lease(id).Owner, 0); err != nil {
						s.Error(err)
					}
				}
			})
		}
		wg.Wait()
		s.want()
	}},
	{"a cancelled context changes nothing", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		ctx, o, a := cancelled(), lease("a").Owner, netip.MustParseAddr("192.168.50.9")
		_, next := s.Next(ctx, s.pool, pool("192.168.50.0/24"), lease("b"))
		_, leases := s.Leases(ctx, s.pool)
		_, count := s.Count(ctx, s.pool)
		for what, err := range map[string]error{
			"Claim":      s.Claim(ctx, s.pool, leaseOf("b", "192.168.50.10")),
			"Next":       next,
			"Release":    s.Release(ctx, s.pool, o, 0),
			"Decline":    s.Decline(ctx, s.pool, a, o, time.Minute),
			"Leases":     leases,
			"Count":      count,
			"RemovePool": s.RemovePool(ctx, s.pool),
		} {
			if !errors.Is(err, context.Canceled) {
				s.Errorf("%s: got %v, want context.Canceled", what, err)
			}
		}
		s.want(held("a", "192.168.50.9"))
	}},
}
