package network

import (
	"fmt"
	"slices"
)

// SLAAC reports whether the containers' kernels configure addresses from router advertisements.
func (d *Definition) SLAAC() bool { return d.IPv6Mode == IPv6SLAAC || d.IPv6Mode == IPv6Both }

// validIPv6Mode checks the fields of a network with addresses from router advertisements.
func (d *Definition) validIPv6Mode() error {
	if d.IPv6Mode != "" {
		if err := oneOf(string(d.IPv6Mode), ipv6Modes); err != nil {
			return err
		}
	}
	if !d.SLAAC() {
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
	case d.IPv6Mode == IPv6Both && leased < 0:
		return fmt.Errorf("%q also leases an IPv6 address: add an IPv6 subnet, or use %q", d.IPv6Mode, IPv6SLAAC)
	case d.SourceRouting:
		return fmt.Errorf("%q has no rules for packets from addresses that come and go: omit source-routing", d.IPv6Mode)
	}
	return nil
}
