package hook

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// closing is what an exact prober takes at its end: its packet socket waits for RCU.
const closeTime = 25 * time.Millisecond

// A control asks the gateways that left the container without an answer once more,
// from the parent's own MAC: what tells a gateway that is silent from a filter for
// MACs on the way, where the container's is another. It runs beside the container's own round, and only where that
// one is in doubt.
//
// Routers are asked for beside an IPv6 gateway: who advertises itself may be the
// gateway, by another address than the network says.
type control struct {
	cancel  context.CancelFunc
	answers chan verify.Findings
}

// sharesMAC: in passthru, and with ipvlan, no filter can tell the container from
// its parent.
func (t *attempt) sharesMAC() bool { return t.rec.MAC == verify.MACOf(t.parent.MAC) }

// direct is the address that IPv6 gateways are asked from to see whether their
// answer comes to the container's MAC alone; none where nobody could see that.
func (t *attempt) directAddr() netip.Addr {
	if t.unwatched != "" || t.sharesMAC() {
		return netip.Addr{}
	}
	return t.rec.MAC.LinkLocal()
}

// doubt starts the control.
func (t *attempt) startControl(ctx context.Context) func([]netip.Addr, time.Duration) {
	return func(silent []netip.Addr, left time.Duration) {
		plan := verify.Plan{
			// From ::, the answer would go to all, the container included.
			From:     verify.MACOf(t.parent.MAC).LinkLocal(),
			Routers:  slices.ContainsFunc(silent, netip.Addr.Is6),
			Deadline: max(left-closeTime, closeTime),
		}
		if !t.sharesMAC() {
			plan.Gateways = silent
		} else if !plan.Routers {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		t.control = &control{cancel, make(chan verify.Findings, 1)}
		go func() {
			f, err := t.askAsParent(ctx, plan)
			if err != nil && ctx.Err() == nil {
				t.Log.Warn("the gateways could not be asked from the parent's MAC", "parent", t.parent.Name, "err", err)
				f.Routers = nil // nor the routers
			}
			t.control.answers <- f
		}()
	}
}

// askAsParent asks from the parent's MAC.
func (t *attempt) askAsParent(ctx context.Context, plan verify.Plan) (f verify.Findings, err error) {
	err = t.Host.Do(func() error {
		f, err = t.exactRound(ctx, t.parent.Index, t.parent.Name, verify.MACOf(t.parent.MAC), plan)
		return err
	})
	return f, err
}

// controlled waits for the control, if there is one, and keeps what it was
// answered. Where the container got every answer itself, that is of no use any more.
func (t *attempt) finishControl(f verify.Findings, plan verify.Plan) {
	t.controls, t.routers = nil, nil
	if t.control == nil {
		return
	}
	useless := len(f.Claimants) > 0 || len(f.Gateways) == len(plan.Gateways)
	if useless {
		t.control.cancel()
	}
	answers := <-t.control.answers
	t.control.cancel()
	t.control = nil
	if !useless {
		t.controls, t.routers = answers.Gateways, answers.Routers
	}
}

// Answers to controls come as quickly as the rival's did; controlSlack is for
// everything else: a router that is busy, a machine here that is. A rival that is
// none of a proxy's costs its attach, which fails anyhow, that much.
const (
	maxProxies   = 4
	controlSlack = 250 * time.Millisecond
)

// reachTime is how long a gateway that has just answered to all may take to answer
// to one.
const reachTime = 250 * time.Millisecond

// proxied reports whether a rival answers for whatever is asked (proxy ARP), and
// so for addresses that nobody holds: the only thing that excuses it.
func (t *attempt) isProxy(ctx context.Context, f verify.Findings) (proxy bool, err error) {
	r := f.Claimants[0]
	free, err := t.freeAddrs(ctx, r.Addr)
	if err != nil || len(free) == 0 || len(t.proxies) == maxProxies {
		return false, err
	}
	took := max(0, r.At.Sub(f.Asked))
	g, err := t.ask(ctx, verify.Plan{Gateways: free, Deadline: 2*took + controlSlack})
	proxy = !slices.ContainsFunc(free, func(a netip.Addr) bool { return g.Gateways[a].MAC != r.MAC })
	if proxy {
		t.proxies = append(t.proxies, r.MAC)
	}
	return proxy, err
}

// freeAddrs gives two addresses of the same subnet that nobody has from us: that a
// host holds several next to each other is common, that it holds both of these is
// not. None where the subnet is too small to find them.
func (t *attempt) freeAddrs(ctx context.Context, near netip.Addr) (free []netip.Addr, err error) {
	i := slices.IndexFunc(t.def.Subnets, func(s network.Subnet) bool { return s.Subnet.Contains(near) })
	if i < 0 {
		return nil, nil
	}
	s, p := t.def.Subnets[i].Subnet, poolOf(t.def, t.def.Subnets[i])
	leases, err := t.Leases.Leases(ctx, poolName(t.def, t.def.Subnets[i]))
	if err != nil {
		return nil, err
	}
	taken := func(a netip.Addr) bool {
		return a == near || slices.Contains(free, a) || slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == a })
	}
	for range 32 {
		if a := randomAddr(s); p.Check(a) == nil && !taken(a) {
			free = append(free, a)
		}
		if len(free) == 2 {
			return free, nil
		}
	}
	return nil, nil
}

func randomAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= byte(rand.IntN(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
