package attach

import (
	"context"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/verify"
)

// maxProxies is the number of proxies that one attach excuses.
const maxProxies = 4

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
