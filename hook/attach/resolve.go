package attach

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
)

// familiesWithoutDefault returns the families in which the interface gets no default route.
func (t *attempt) familiesWithoutDefault() map[hook.Family]bool {
	both := map[hook.Family]bool{hook.IPv4: true, hook.IPv6: true}
	switch requested := t.want.Default; {
	case t.clusterHasDefault():
		return both // the author of the pod cannot change that
	case requested == nil:
		return maps.Clone(t.noDefault)
	case *requested:
		return nil
	}
	return both
}

// resolve reads what the attach depends on: default routes, subnets, parent and the names in the
// namespace. It changes nothing on the host.
func (t *attempt) resolve() (err error) {
	t.noDefault = t.familiesWithoutDefault()
	if t.subnets, err = chooseSubnets(t.def, t.want.Addrs); err != nil {
		return err
	}
	t.parent, err = t.Parent(t.def)
	if errors.Is(err, link.ErrNoLink) && t.def.Managed {
		err = nil // prepareLinks creates it, after the intent is recorded
	}
	if err == nil {
		err = t.checkMTU()
	}
	if err != nil {
		return parts.ExplainMissingParent(t.def, err)
	}
	t.renewing = t.def.AsksServers() && t.ServiceRenews()
	return t.readNames()
}

// readNames reads the names that the interface cannot have, unless its name is requested.
func (t *attempt) readNames() (err error) {
	if t.want.Interface != "" {
		return nil
	}
	if t.usedNames, err = t.ns.Links(); err != nil {
		return err
	}
	t.loopbackOnly = len(t.usedNames) == 1
	for _, w := range t.r.Wants {
		t.usedNames = append(t.usedNames, w.Interface) // used by this request
	}
	return nil
}

// minMTU6 is the minimum MTU of IPv6, in bytes (RFC 8200 §5). Below it, the kernel silently turns
// IPv6 off on the interface.
const minMTU6 = 1280

// checkMTU returns an error if the MTU is too small for one of the subnets.
func (t *attempt) checkMTU() error {
	mtu := t.mtu()
	if t.def.TakesRouters() && mtu != 0 && mtu < minMTU6 {
		return fmt.Errorf("MTU %d is too small: IPv6 needs at least %d", mtu, minMTU6)
	}
	for _, s := range t.subnets {
		if s.Subnet.Addr().Is6() && mtu != 0 && mtu < minMTU6 {
			return fmt.Errorf("MTU %d is too small: IPv6 subnet %s needs at least %d", mtu, s.Subnet, minMTU6)
		}
	}
	return nil
}

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
