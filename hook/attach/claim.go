package attach

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/ipam"
)

// chooseSubnets returns the subnets to claim addresses from: those of the requested addresses, and
// the first one of each family without a requested address.
func chooseSubnets(def *network.Definition, asked []netip.Addr) (chosen []network.Subnet, err error) {
	if def.IPAM == network.IPAMNone && len(asked) > 0 {
		return nil, fmt.Errorf("cannot use address %s: the network assigns no addresses: the workload configures its own",
			asked[0])
	}
	if def.IPAM == network.IPAMDHCP {
		return nil, checkAskedOfServers(def, asked)
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

// checkAskedOfServers returns an error if no DHCP server can give a requested address.
func checkAskedOfServers(def *network.Definition, asked []netip.Addr) error {
	for _, a := range asked {
		switch {
		case a.Is6():
			return fmt.Errorf("cannot use address %s: the network's addresses come from DHCP servers, which assign IPv4 "+
				"addresses: omit io.lanyard.ip6", a)
		case len(def.Subnets) > 0 && !def.Subnets[0].Subnet.Contains(a):
			return fmt.Errorf("address %s is in none of its subnets (%s)", a, subnetList(def))
		}
	}
	return nil
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
func (t *attempt) claimAddrs(ctx context.Context, in ipam.Store) (err error) {
	if t.hostAddrs, err = t.Host.HostAddrs(); err != nil {
		return err
	}
	t.rec.Addrs, t.rec.Gateways = nil, nil
	for _, s := range t.subnets {
		a, err := t.claimIn(ctx, in, s)
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

// ownerOf returns the owner of an attachment's leases.
func ownerOf(a hook.Attachment) ipam.Owner {
	return ipam.Owner{Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface}
}

// leaseName returns the name by which a container finds its address again after a restart: the
// engine's name of the container, or its id, which some engines keep. In a pod it is the pod's name,
// because any of its containers may start first. A caller without privilege chooses its names
// freely, so its uid is a part of them.
func leaseName(c hook.Container, p hook.Pod, by *hook.Caller) string {
	name := cmp.Or(c.Name, c.ID)
	if p.Name != "" {
		name = p.Namespace + "/" + p.Name
	}
	if by == nil {
		return name
	}
	return fmt.Sprintf("uid %d: %s", by.UID, name)
}

// claimIn claims one address of a subnet: the requested one, or the next free one.
func (t *attempt) claimIn(ctx context.Context, in ipam.Store, s network.Subnet) (netip.Addr, error) {
	name, p := parts.PoolName(t.def, s), parts.PoolOf(t.def, s)
	if err := t.reserveHosts(p.Reserved, s.Subnet, t.hostAddrs); err != nil {
		return netip.Addr{}, err
	}
	l := ipam.Lease{Owner: ownerOf(t.rec), Name: t.leaseName()}
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
		err := in.Claim(ctx, name, l)
		if t.caller != nil && errors.Is(err, ipam.ErrTaken) {
			err = takenError{a}
		}
		return a, err
	}
	switch {
	case t.pickRandom:
		l.Addr = p.Start(rand.Text())
	case t.def.Allocate == network.AllocateStable:
		l.Addr = p.Start(l.Name)
	}
	return in.Next(ctx, name, p, l)
}

// takenError is ipam.ErrTaken without the holder, which a caller without privilege may not know.
type takenError struct{ addr netip.Addr }

func (e takenError) Error() string {
	return fmt.Sprintf("address %s is in use: request another one, or none", e.addr)
}

func (takenError) Unwrap() error { return ipam.ErrTaken }
