package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// HostLink is the name of the host's own link on a network with HostAccess. It
// has the 15 bytes that Linux allows.
func (d *Definition) HostLink() string { return "ly-" + d.ID[:12] }

// cannotHostAccess says why no link of the host's own would reach the
// containers, or "".
func (d *Definition) cannotHostAccess() string {
	switch {
	case d.IPAM == IPAMNone:
		return "the network gives no addresses to route to"
	case d.Mode == ModePassthru:
		return "mode passthru shares its parent with nobody"
	case d.Mode == ModePrivate || d.Flag == ModePrivate:
		return "mode private keeps everybody on the parent apart, the host's link, too"
	case d.Mode == ModeVEPA || d.Flag == ModeVEPA:
		return "mode vepa reaches others by the switch alone, and one that sends frames back reaches the parent's own address"
	case d.Routed():
		return fmt.Sprintf("mode %s has the host route between containers and parent, and not to itself", d.Mode)
	}
	return ""
}

// validHostAccess answers "field: reason". Subnets without an address of the
// host's are no fault yet: who makes the network settles on one for each.
func (d *Definition) validHostAccess() error {
	if !d.HostAccess {
		if len(d.HostAddresses) > 0 {
			return fmt.Errorf("host-address: %s is nobody's without host-access", d.HostAddresses[0])
		}
		return nil
	}
	if why := d.cannotHostAccess(); why != "" {
		return fmt.Errorf("host-access: cannot be had: %s", why)
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
			return fmt.Errorf("%s is %s already", a, clip(name))
		}
	}
	for _, other := range before {
		if s.Subnet.Contains(other) {
			return fmt.Errorf("%s and %s are both in %s: the host has one address there", other, a, s.Subnet)
		}
	}
	return nil
}

// HostAddress is the host's address in a subnet; the zero Addr where it has none.
func (d *Definition) HostAddress(s Subnet) netip.Addr {
	for _, a := range d.HostAddresses {
		if s.Subnet.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// HostConflicts says why the host cannot reach d's containers beside those of
// the other definitions, on whatever parent, or nil: it has one route to an
// address.
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
					return fmt.Errorf("subnet %s overlaps %s of network %q, and both are for the host to reach: leave --host-access out of one", mine.Subnet, theirs.Subnet, o.Name)
				}
			}
		}
	}
	return nil
}
