package attach

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// onProbeLink runs f in the namespace of the link that sends probes, with the link's ifindex and
// name: the new interface in the container's namespace, or the parent if the driver asks from there.
func (v *verification) onProbeLink(f func(index int, name string) error) error {
	if v.driver().AsksFromParent() {
		return v.Host.Do(func() error { return f(v.parent.Index, v.parent.Name) })
	}
	return v.ns.Do(func() error { return f(v.rec.Index, v.rec.Interface) })
}

// plan returns the plan of a round for the addresses and gateways of the record.
func (v *verification) plan() verify.Plan {
	p := verify.Plan{
		Addrs:    slices.DeleteFunc(v.addrs(), v.isKept),
		Held:     v.configured,
		Gateways: v.rec.Gateways,
		Window:   time.Duration(v.def.ConflictWindow),
		Deadline: time.Duration(v.def.Deadline),
		Proxies:  v.proxies,
	}
	if v.unwatched == "" {
		p.Observed, p.Ask = v.claimants, v.askConflict
		// Without a gateway, the trunk watches for the question for each address. An announcement is one
		// for IPv4 only.
		noQuestion := len(v.rec.Gateways) == 0 && slices.ContainsFunc(p.Addrs, netip.Addr.Is6)
		p.FromContainer = noQuestion || v.hostState == nil || len(v.hostState.unrecorded) > 0
	} else {
		// What a router announces to all nodes is no answer, and no program tells the two apart.
		p.From = v.rec.MAC.LinkLocal()
	}
	return p
}

// askConflict asks the LAN, from the parent and with the parent's MAC, whether another station has
// one of the addresses. The trunk program sees the answers. They go to the parent's MAC, so that a
// station with the interface's own MAC answers, too. The parent's frames do not reach the macvlans
// on it: the addresses of Lanyard's are known from their leases, and the others are asked from
// inside the namespace (see unrecordedMACs).
func (v *verification) askConflict() error {
	mac := v.parent.MAC
	return v.Host.Do(func() error {
		for _, a := range v.addrs() {
			questions := []verify.Question{{Addr: a, Conflict: true}}
			if a.Is6() {
				// The answer to one station also passes a network card that has not joined
				// the group of all nodes.
				questions = append(questions, verify.Question{Addr: a, Conflict: true, From: mac.ProbeLinkLocal()})
			}
			for _, q := range questions {
				if err := v.Probers.Ask(v.parent.Index, mac, q); err != nil {
					return fmt.Errorf("ask from parent %q: %w", v.parent.Name, err)
				}
			}
		}
		return nil
	})
}

// claimants returns the claimants that the trunk program has seen after ignoreUntil, and after their
// station was excused. In a later verification, probes do not count as claims. On an error it returns
// none, because the prober also hears claimants.
func (v *verification) claimants() []verify.Claimant {
	list, err := v.Datapath.Claimants(v.rec.Endpoint)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(c verify.Claimant) bool {
		return c.At <= max(v.ignoreUntil, v.excused[c.MAC]) || c.Probing && v.configured ||
			!c.SameMAC && v.isKept(c.Addr)
	})
}

// tellLocals reports the MACs of this host to the trunk program: the parent's, and those of siblings
// if the list is not nil.
func (v *verification) tellLocals(siblings []ether.MAC) error {
	return v.Datapath.Locals(v.parent.TrunkIndex, verify.Locals{Parents: []ether.MAC{v.parent.MAC}, Siblings: siblings})
}

// askAsParent runs one round from a parent, with the parent's MAC.
func (l *Local) askAsParent(ctx context.Context, p link.Parent, plan verify.Plan) (f verify.Findings, err error) {
	err = l.Host.Do(func() error {
		f, err = l.exactRound(ctx, p.Index, p.Name, p.MAC, plan)
		return err
	})
	return f, err
}

// ask runs a round from the container's probe link, with an exact prober. It loads the trunk
// program again if it is missing, because the last round may have been long ago.
func (v *verification) ask(ctx context.Context, plan verify.Plan) (f verify.Findings, err error) {
	if v.unwatched == "" {
		v.unwatched = v.WatchTrunk(v.parent.TrunkIndex)
	}
	err = v.onProbeLink(func(index int, name string) error {
		f, err = v.exactRound(ctx, index, name, v.rec.MAC, plan)
		return err
	})
	return f, err
}

// exactRound runs a round with an exact prober, which reads all answers itself: if two stations
// answer for one address, it hears both. Closing its packet socket waits for RCU, so a start calls
// it only for answers in doubt, or on a trunk that is not watched. exactRound must run inside the
// link's namespace. index is the link's ifindex.
func (l *Local) exactRound(
	ctx context.Context, index int, name string, mac ether.MAC, plan verify.Plan,
) (f verify.Findings, err error) {
	p, err := l.Probers.Exact(index, mac)
	if err != nil {
		return f, fmt.Errorf("open a prober on %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return verify.Round(ctx, p, plan)
}

// controlSlack is added to the claimant's response time: the sum is the timeout of the control question.
// It is for a busy router or a busy host. A claimant that is no proxy delays the attach by this time.
const controlSlack = 250 * time.Millisecond

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
