package hook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// declined is how long an address that somebody else holds on the wire is not
// given out: long enough that a start does not meet it again and again, short
// enough that an address freed in the meantime comes back by itself.
const declineTime = 10 * time.Minute

// choose picks the subnets that addresses are claimed from: those that hold
// the addresses asked for, and the first of each family not asked for.
func chooseSubnets(def *network.Definition, asked []netip.Addr) (chosen []network.Subnet, err error) {
	if def.IPAM == network.IPAMNone && len(asked) > 0 {
		return nil, fmt.Errorf("address %s cannot be had: the network gives none, and leaves them to the workload", asked[0])
	}
	have := map[bool]bool{} // by Is4
	for _, a := range asked {
		i := slices.IndexFunc(def.Subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a) })
		if i < 0 {
			return nil, fmt.Errorf("address %s is in none of its subnets (%s)", a, subnetList(def))
		}
		chosen, have[a.Is4()] = append(chosen, def.Subnets[i]), true
	}
	for _, s := range def.Subnets {
		if !have[s.Subnet.Addr().Is4()] {
			chosen, have[s.Subnet.Addr().Is4()] = append(chosen, s), true
		}
	}
	return chosen, nil
}

func subnetList(def *network.Definition) string {
	ps := make([]netip.Prefix, len(def.Subnets))
	for i, s := range def.Subnets {
		ps[i] = s.Subnet
	}
	return joinPrefixes(ps)
}

// claim takes an address in every chosen subnet.
func (t *attempt) claimAddrs(ctx context.Context) (err error) {
	if t.hostAddrs, err = t.Host.HostAddrs(); err != nil {
		return err
	}
	t.rec.Addrs, t.rec.Gateways = nil, nil
	for _, s := range t.subnets {
		a, err := t.claimIn(ctx, s)
		if err != nil {
			return err
		}
		t.rec.Addrs = append(t.rec.Addrs, netip.PrefixFrom(a, s.Subnet.Bits()))
		if s.Gateway.IsValid() && !t.def.Internal {
			t.rec.Gateways = append(t.rec.Gateways, s.Gateway)
		}
	}
	return nil
}

func (t *attempt) owner() ipam.Owner {
	return ipam.Owner{Attachment: t.rec.ID.String(), Network: t.rec.Network, Interface: t.rec.Interface}
}

// leaseName is what stays the same when the container is started again, and what
// a lease is found again by: what the engine calls it, or its id, which some
// engines keep. In a pod it is the pod's, whichever of its containers starts first.
// A caller chooses its own names freely: with its uid
// before it, it is no other's.
func (t *attempt) leaseName() string {
	name := t.r.Name
	if name == "" {
		name = t.r.Container
	}
	if p := t.r.Pod; p.Name != "" {
		name = p.Namespace + "/" + p.Name
	}
	if t.caller == nil {
		return name
	}
	return fmt.Sprintf("uid %d: %s", t.caller.UID, name)
}

// claimIn takes one address: the one asked for, or the next.
func (t *attempt) claimIn(ctx context.Context, s network.Subnet) (netip.Addr, error) {
	name, p := poolName(t.def, s), poolOf(t.def, s)
	if err := t.reserveHosts(p.Reserved, s.Subnet, t.hostAddrs); err != nil {
		return netip.Addr{}, err
	}
	l := ipam.Lease{Owner: t.owner(), Name: t.leaseName(), MAC: t.want.MAC.String()}
	for _, a := range t.want.Addrs {
		if !s.Subnet.Contains(a) {
			continue
		}
		if err := p.Check(a); err != nil {
			return netip.Addr{}, err
		}
		l.Addr = a
		err := t.Leases.Claim(ctx, name, l)
		if t.caller != nil && errors.Is(err, ipam.ErrTaken) {
			err = fmt.Errorf("address %s is taken: ask for another, or for none", a) // whose it is, is not the caller's to know
		}
		return a, err
	}
	switch {
	case t.pickRandom:
		l.Addr = p.Start(rand.Text())
	case t.def.Allocate == network.AllocateStable:
		l.Addr = p.Start(l.Name)
	}
	return t.Leases.Next(ctx, name, p, l)
}

// poolOf is what ipam has to know of a network's subnet.
func poolOf(def *network.Definition, s network.Subnet) ipam.Pool {
	p := ipam.Pool{Subnet: s.Subnet, Ranges: s.Ranges, Reserved: map[netip.Addr]string{}}
	for name, a := range s.Aux {
		p.Reserved[a] = fmt.Sprintf("aux-address %q", name)
	}
	if s.Gateway.IsValid() {
		p.Reserved[s.Gateway] = "gateway"
	}
	if a := def.HostAddress(s); a.IsValid() {
		p.Reserved[a] = "host's own (--host-access)"
	}
	return p
}

// declineLease gives an address up that another station has.
func (t *attempt) declineLease(ctx context.Context, a netip.Addr) error {
	i := slices.IndexFunc(t.subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a) })
	return t.Leases.Decline(ctx, poolName(t.def, t.subnets[i]), a, t.owner(), declineTime)
}

// replaceAddr declines one address and claims the next of the same subnet.
func (t *attempt) replaceAddr(ctx context.Context, a netip.Addr) error {
	i := slices.IndexFunc(t.subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a) })
	s := t.subnets[i]
	if err := t.declineLease(ctx, a); err != nil {
		return err
	}
	next, err := t.claimIn(ctx, s)
	if err != nil {
		return fmt.Errorf("%s is held by another station on the LAN: %w", a, err)
	}
	t.rec.Addrs[i] = netip.PrefixFrom(next, s.Subnet.Bits())
	return nil
}
