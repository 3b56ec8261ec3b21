package network

import (
	"fmt"
	"slices"
)

// SLAAC reports whether the containers' kernels configure addresses from router advertisements.
func (d *Definition) SLAAC() bool { return d.IPv6Mode == IPv6SLAAC || d.IPv6Mode == IPv6Both }

// TakesRouters reports whether the containers' kernels take routes, and possibly addresses, from router
// advertisements.
func (d *Definition) TakesRouters() bool { return d.SLAAC() || d.IPv6Mode == IPv6DHCP }

// StablePrivacy reports whether these addresses are IPv6StablePrivacy.
func (d *Definition) StablePrivacy() bool { return d.IPv6Addresses == IPv6StablePrivacy }

// LearnsNames reports whether DHCP servers or routers can give name servers to the containers.
func (d *Definition) LearnsNames() bool { return d.AsksServers() || d.TakesRouters() }

// validIPv6Mode checks the fields of a network that takes router advertisements.
func (d *Definition) validIPv6Mode() error {
	if d.IPv6Mode != "" {
		if err := oneOf(string(d.IPv6Mode), ipv6Modes); err != nil {
			return err
		}
	}
	if !d.TakesRouters() {
		return nil
	}
	leased := slices.IndexFunc(d.Subnets, func(s Subnet) bool { return s.Subnet.Addr().Is6() })
	switch {
	case d.SharesMAC():
		return fmt.Errorf("%q is not possible with %s, mode %s: the containers have the parent's MAC, which their addresses "+
			"would be made from", d.IPv6Mode, d.Driver, d.Mode)
	case d.Dummy():
		return fmt.Errorf("%q needs a parent that leads to a router", d.IPv6Mode)
	case d.IPv6Mode == IPv6SLAAC && leased >= 0:
		return fmt.Errorf("%q takes IPv6 addresses from routers only: omit subnet %s, or use %q", d.IPv6Mode,
			d.Subnets[leased].Subnet, IPv6Both)
	case d.IPv6Mode == IPv6DHCP && leased >= 0:
		return fmt.Errorf("%q takes IPv6 addresses from DHCPv6 servers only: omit subnet %s", d.IPv6Mode,
			d.Subnets[leased].Subnet)
	case d.IPv6Mode == IPv6DHCP && d.Leases != "":
		return fmt.Errorf("%q leaves IPv6 leases to the servers: omit leases %q", d.IPv6Mode, d.Leases)
	case d.IPv6Mode == IPv6Both && leased < 0:
		return fmt.Errorf("%q also leases an IPv6 address: add an IPv6 subnet, or use %q", d.IPv6Mode, IPv6SLAAC)
	case d.SourceRouting:
		return fmt.Errorf("%q has no rules for packets from addresses that come and go: omit source-routing", d.IPv6Mode)
	}
	return nil
}

// validIPv6Form checks the form of addresses from routers.
func (d *Definition) validIPv6Form() error {
	if d.IPv6Addresses == "" {
		return nil
	}
	if err := oneOf(string(d.IPv6Addresses), ipv6Forms); err != nil {
		return err
	}
	switch {
	case !d.SLAAC():
		return fmt.Errorf("%q is a form of addresses from routers: use ipv6-mode %q or %q, or omit it", d.IPv6Addresses,
			IPv6SLAAC, IPv6Both)
	case d.StablePrivacy() && len(d.AllowUsers)+len(d.AllowGroups) > 0 && d.BrokeredMode() == BrokeredGuarded:
		return fmt.Errorf("%q is not possible for rootless containers, which are guarded: the guard knows addresses by the "+
			"MAC: omit allow-user and allow-group, set brokered to %q, or use %q", d.IPv6Addresses, BrokeredDirect, IPv6EUI64)
	}
	return nil
}
