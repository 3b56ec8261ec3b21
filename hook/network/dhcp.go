package network

import "fmt"

// FromServers reports whether addresses of a family, 4 or 6, come from DHCP servers.
func (d *Definition) FromServers(family int) bool {
	if family == 6 {
		return d.IPv6Mode == IPv6DHCP
	}
	return d.IPAM == IPAMDHCP
}

// AsksServers reports whether addresses come from DHCP servers.
func (d *Definition) AsksServers() bool { return d.FromServers(4) || d.FromServers(6) }

// HasLeases reports whether containers have addresses that a guard can enforce: Lanyard's or those of DHCP
// servers.
func (d *Definition) HasLeases() bool { return d.IPAM != IPAMNone || d.FromServers(6) }

// validDHCP checks the fields of a network with addresses from DHCP servers.
func (d *Definition) validDHCP() error {
	switch {
	case d.Driver != DriverMacvlan:
		return fmt.Errorf("ipam: %q needs driver %s: with %s, all containers have the parent's MAC", d.IPAM, DriverMacvlan,
			d.Driver)
	case d.Dummy():
		return fmt.Errorf("ipam: %q needs a parent that leads to a DHCP server", d.IPAM)
	case len(d.Subnets) > 1:
		return fmt.Errorf("subnets: ipam %q assigns one address: omit all but one", d.IPAM)
	case d.Leases != "":
		return fmt.Errorf("leases: with ipam %q, servers keep the leases: omit one of them", d.IPAM)
	case d.Allocate != "":
		return fmt.Errorf("allocate: ipam %q leaves the choice of addresses to the server: omit one of them", d.IPAM)
	case d.MACFrom == MACFromAddress:
		return fmt.Errorf("mac-from: with ipam %q, a container has a MAC before it has an address: omit one of them", d.IPAM)
	}
	for _, s := range d.Subnets {
		switch {
		case !s.Subnet.Addr().Is4():
			return fmt.Errorf("subnets: ipam %q assigns IPv4 addresses, and %s is IPv6: omit it", d.IPAM, s.Subnet)
		case len(s.Ranges) > 0:
			return fmt.Errorf("subnets: ipam %q leaves the choice of addresses to the server: omit ip-range", d.IPAM)
		case len(s.Aux) > 0:
			return fmt.Errorf("subnets: ipam %q leaves the choice of addresses to the server: omit aux-address", d.IPAM)
		}
	}
	return nil
}
