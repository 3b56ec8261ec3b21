package attach

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// maxProxies is the number of proxies that one attach excuses.
const maxProxies = 4

// controlSlack is added to the claimant's response time: the sum is the timeout of the control question.
// It is for a busy router or a busy host. A claimant that is no proxy delays the attach by this time.
const controlSlack = 250 * time.Millisecond

// isProxy reports whether the first claimant of the findings answers for all addresses (proxy ARP),
// also for free ones. A proxy's claim is not a conflict.
func (v *verification) isProxy(ctx context.Context, f verify.Findings) (proxy bool, err error) {
	if len(v.proxies) == maxProxies {
		return false, nil
	}
	c := f.Claimants[0]
	free, err := v.freeAddrs(ctx, c.Addr)
	if err != nil || len(free) == 0 {
		return false, err
	}
	took := max(0, c.At.Sub(f.Asked)) // how long the claimant's answer took
	g, err := v.ask(ctx, verify.Plan{Gateways: free, Deadline: 2*took + controlSlack})
	proxy = !slices.ContainsFunc(free, func(a netip.Addr) bool { return g.Gateways[a].MAC != c.MAC })
	if proxy {
		v.proxies = append(v.proxies, c.MAC)
	}
	return proxy, err
}

// freeAddrs returns two random addresses of the subnet of near that have no lease. A host often has
// several adjacent addresses, but rarely two random ones. It returns none if the subnet is too
// small.
func (v *verification) freeAddrs(ctx context.Context, near netip.Addr) (free []netip.Addr, err error) {
	i := slices.IndexFunc(v.def.Subnets, func(s network.Subnet) bool { return s.Subnet.Contains(near) })
	if i < 0 {
		return nil, nil
	}
	s, p := v.def.Subnets[i].Subnet, parts.PoolOf(v.def, v.def.Subnets[i])
	var leases []ipam.Lease
	if v.outageOf() == nil {
		err := v.WithStore(ctx, v.def.Leases, func(in ipam.Store) (err error) {
			leases, err = in.Leases(ctx, parts.PoolName(v.def, v.def.Subnets[i]))
			return err
		})
		if err != nil && !v.noteOutage(err) {
			return nil, err
		}
	}
	used := func(a netip.Addr) bool {
		leased := slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == a })
		return leased || a == near || slices.Contains(free, a)
	}
	for range 32 {
		if a := randomAddr(s); p.Check(a) == nil && !used(a) {
			free = append(free, a)
		}
		if len(free) == 2 {
			return free, nil
		}
	}
	return nil, nil
}

// randomAddr returns a random address of a subnet.
func randomAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= byte(rand.IntN(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
