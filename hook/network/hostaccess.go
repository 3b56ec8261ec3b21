package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// hostLinkPrefix is the prefix of the names of the host's links on networks with HostAccess.
const hostLinkPrefix = "ly-"

// HostLink returns the name of the host's link on a network with HostAccess. It has 15 bytes,
// the maximum of Linux.
func (d *Definition) HostLink() string { return hostLinkPrefix + d.ID[:12] }

// IsHostLink reports whether a link's name has the form that HostLink returns.
func IsHostLink(name string) bool {
	id, ok := strings.CutPrefix(name, hostLinkPrefix)
	return ok && len(id) == 12
}

// cannotHostAccess returns why a link of the host would not reach the containers, or "".
func (d *Definition) cannotHostAccess() string {
	switch {
	case d.IPAM == IPAMNone:
		return "ipam \"none\" assigns no addresses to route to"
	case d.IPAM == IPAMDHCP:
		return "with ipam \"dhcp\", the host has no address that the server does not lease to others"
	case d.TakesRouters():
		return fmt.Sprintf("with ipv6-mode %q, containers have addresses that the host has no route to", d.IPv6Mode)
	case d.Mode == ModePassthru:
		return "mode passthru needs the parent exclusively"
	case d.Mode == ModePrivate || d.Flag == ModePrivate:
		return "mode private isolates all links on the parent, also the host's"
	case d.Mode == ModeVEPA || d.Flag == ModeVEPA:
		return "mode vepa sends all frames to the switch, and if that returns them, they reach the parent's own address"
	case d.Routed():
		return fmt.Sprintf("in mode %s the host routes between containers and parent, but not to itself", d.Mode)
	}
	return ""
}

// validHostAccess returns errors of the form "field: reason". A subnet may lack an address
// for the host: the creation of the network chooses one for each.
func (d *Definition) validHostAccess() error {
	if !d.HostAccess {
		if len(d.HostAddresses) > 0 {
			return fmt.Errorf("host-address: %s has no effect without host-access: add host-access", d.HostAddresses[0])
		}
		return nil
	}
	if why := d.cannotHostAccess(); why != "" {
		return fmt.Errorf("host-access: is not possible: %s", why)
	}
	for i, a := range d.HostAddresses {
		if err := d.validHostAddress(a, d.HostAddresses[:i]); err != nil {
			return fmt.Errorf("host-address[%d]: %w", i, err)
		}
	}
	return nil
}

func (d *Definition) validHostAddress(a netip.Addr, before []netip.Addr) error {
	at := slices.IndexFunc(d.Subnets, func(s Subnet) bool { return s.Subnet.Contains(a) })
	if at < 0 {
		return fmt.Errorf("%s is in none of the network's subnets", a)
	}
	s := d.Subnets[at]
	if err := s.checkHost(a); err != nil {
		return err
	}
	if a == s.Gateway {
		return fmt.Errorf("%s is the gateway", a)
	}
	for name, other := range s.Aux {
		if other == a {
			return fmt.Errorf("%s is aux-address %s already", a, Clip(name))
		}
	}
	for _, other := range before {
		if s.Subnet.Contains(other) {
			return fmt.Errorf("%s and %s are both in %s: the host has one address there", other, a, s.Subnet)
		}
	}
	return nil
}

// HostAddress returns the host's address in a subnet, or the zero Addr.
func (d *Definition) HostAddress(s Subnet) netip.Addr {
	for _, a := range d.HostAddresses {
		if s.Subnet.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// HostConflicts returns an error if the host cannot reach the containers of d and those of
// the other definitions, on any parent: it has one route to an address.
func (d *Definition) HostConflicts(others []*Definition) error {
	if !d.HostAccess {
		return nil
	}
	for _, o := range others {
		if o.Name == d.Name || !o.HostAccess {
			continue
		}
		for _, mine := range d.Subnets {
			for _, theirs := range o.Subnets {
				if mine.Subnet.Overlaps(theirs.Subnet) {
					return fmt.Errorf("subnet %s overlaps %s of network %q, and both have host access: omit --host-access from one",
						mine.Subnet, theirs.Subnet, o.Name)
				}
			}
		}
	}
	return nil
}
