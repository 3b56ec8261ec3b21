package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/ipam"
)

// declineTime is how long an address with a claimant is not assigned: long enough that starts do
// not try it again and again, short enough that an address that its claimant gives up is soon
// usable again.
const declineTime = 10 * time.Minute

// chooseSubnets returns the subnets to claim addresses from: those of the requested addresses, and
// the first one of each family without a requested address.
func chooseSubnets(def *network.Definition, asked []netip.Addr) (chosen []network.Subnet, err error) {
	if def.IPAM == network.IPAMNone && len(asked) > 0 {
		return nil, fmt.Errorf("cannot use address %s: the network assigns no addresses: the workload configures its own",
			asked[0])
	}
	have := map[hook.Family]bool{}
	for _, a := range asked {
		i := slices.IndexFunc(def.Subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a) })
		if i < 0 {
			return nil, fmt.Errorf("address %s is in none of its subnets (%s)", a, subnetList(def))
		}
		chosen, have[hook.FamilyOf(a)] = append(chosen, def.Subnets[i]), true
	}
	for _, s := range def.Subnets {
		if f := hook.FamilyOf(s.Subnet.Addr()); !have[f] {
			chosen, have[f] = append(chosen, s), true
		}
	}
	return chosen, nil
}

// subnetList returns the network's subnets, separated by ", ".
func subnetList(def *network.Definition) string {
	ps := make([]netip.Prefix, len(def.Subnets))
	for i, s := range def.Subnets {
		ps[i] = s.Subnet
	}
	return joinPrefixes(ps)
}

// claimAddrs claims one address in each chosen subnet and adds the subnets' gateways to the record.
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

// owner returns the owner of the attachment's leases.
func (t *attempt) owner() ipam.Owner {
	return ipam.Owner{Attachment: t.rec.ID.String(), Network: t.rec.Network, Interface: t.rec.Interface}
}

// leaseName returns the name of the attachment's leases, by which a container finds its address
// again after a restart: the engine's name of the container, or its id, which some engines keep.
// In a pod it is the pod's name, because any of its containers may start first. A caller without
// privilege chooses its names freely, so its uid is a part of them.
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

// claimIn claims one address of a subnet: the requested one, or the next free one.
func (t *attempt) claimIn(ctx context.Context, s network.Subnet) (netip.Addr, error) {
	name, p := parts.PoolName(t.def, s), parts.PoolOf(t.def, s)
	if err := t.reserveHosts(p.Reserved, s.Subnet, t.hostAddrs); err != nil {
		return netip.Addr{}, err
	}
	l := ipam.Lease{Owner: t.owner(), Name: t.leaseName()}
	if !t.want.MAC.IsZero() {
		l.MAC = t.want.MAC.String()
	}
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
			// Without the holder, which the caller may not know.
			err = fmt.Errorf("address %s is in use: request another one, or none", a)
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

// declineLease declines an address that another station uses: it is not assigned for declineTime.
func (t *attempt) declineLease(ctx context.Context, a netip.Addr) error {
	i := slices.IndexFunc(t.subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a) })
	return t.Leases.Decline(ctx, parts.PoolName(t.def, t.subnets[i]), a, t.owner(), declineTime)
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
		return fmt.Errorf("address %s is in use by another station on the LAN: %w", a, err)
	}
	t.rec.Addrs[i] = netip.PrefixFrom(next, s.Subnet.Bits())
	return nil
}
