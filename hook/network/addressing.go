package network

import (
	"fmt"
	"slices"
)

// IPAM selects how containers get addresses. Empty: Lanyard leases them.
type IPAM string

// IPAMNone disables address management: the workload uses DHCP or router advertisements.
const IPAMNone IPAM = "none"

// IPAMDHCP gets an IPv4 address for each container from the DHCP servers of the LAN. A subnet is
// optional: then servers must offer addresses in it, and its gateway is used instead of theirs.
const IPAMDHCP IPAM = "dhcp"

var ipamValues = []string{string(IPAMNone), string(IPAMDHCP)}

// IPv6Mode selects how containers get IPv6 addresses. Empty: IPv6Leased.
type IPv6Mode string

const (
	IPv6Leased IPv6Mode = "leased" // Lanyard leases them, from the subnets
	IPv6SLAAC  IPv6Mode = "slaac"  // the container's kernel configures them from router advertisements
	IPv6Both   IPv6Mode = "both"   // one of each
	IPv6DHCP   IPv6Mode = "dhcp"   // the DHCPv6 servers of the LAN lease them; the default route is from routers
)

var ipv6Modes = []string{string(IPv6Leased), string(IPv6SLAAC), string(IPv6Both), string(IPv6DHCP)}

// IPv6Form selects how a container's kernel makes an address from the prefix of a router. Empty: IPv6EUI64.
type IPv6Form string

const (
	// IPv6EUI64 ends the address with the EUI-64 of the container's MAC.
	IPv6EUI64 IPv6Form = "eui64"
	// IPv6StablePrivacy derives its end from the host's identity, the network, the container's name and the
	// prefix (RFC 7217): it differs between prefixes, and is stable for a container's name.
	IPv6StablePrivacy IPv6Form = "stable-privacy"
)

var ipv6Forms = []string{string(IPv6EUI64), string(IPv6StablePrivacy)}

// LeaseStore selects the store of a network's leases. Empty: this host's database.
type LeaseStore string

// LeasesEtcd keeps leases in an etcd cluster. All hosts that use the cluster share the pools of
// networks with the same name and subnet.
const LeasesEtcd LeaseStore = "etcd"

// Allocate selects which free address a container without a request for one gets.
type Allocate string

const (
	// AllocateSequential starts the search after the last leased address.
	AllocateSequential Allocate = "sequential"
	// AllocateStable starts the search at an address derived from the container's name.
	// A restarted container gets its previous address if that is free.
	AllocateStable Allocate = "stable"
)

// MACFrom says what a container's MAC is derived from.
type MACFrom string

const (
	// MACFromHost derives it from the host's identity, the network and the address:
	// two hosts with the same definition never have the same MAC.
	MACFromHost MACFrom = "host"
	// MACFromAddress takes 02:42 and the IPv4 address: every host gives an address the
	// same MAC.
	MACFromAddress MACFrom = "address"
)

var macFromValues = []string{string(MACFromHost), string(MACFromAddress)}

var leaseStoreValues = []string{string(LeasesEtcd)}

var allocateValues = []string{string(AllocateSequential), string(AllocateStable)}

func (d *Definition) validAddressing() error {
	switch d.IPAM {
	case "":
		if len(d.Subnets) == 0 {
			return fmt.Errorf("subnets: is empty: a network needs at least one, or \"ipam\": %q", IPAMNone)
		}
	case IPAMNone:
		switch {
		case len(d.Subnets) > 0:
			return fmt.Errorf("subnets: %s is of no use, because ipam %q assigns no addresses: omit one of them",
				d.Subnets[0].Subnet, d.IPAM)
		case len(d.Routes) > 0:
			return fmt.Errorf("routes: ipam %q assigns no addresses to route from: omit one of them", d.IPAM)
		case d.Leases != "":
			return fmt.Errorf("leases: ipam %q assigns no addresses to lease: omit one of them", d.IPAM)
		case d.SourceRouting:
			return fmt.Errorf("source-routing: ipam %q assigns no addresses to route from: omit one of them", d.IPAM)
		}
	case IPAMDHCP:
		if err := d.validDHCP(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("ipam: %w", oneOf(string(d.IPAM), ipamValues))
	}
	if err := d.validIPv6Mode(); err != nil {
		return fmt.Errorf("ipv6-mode: %w", err)
	}
	if err := d.validIPv6Form(); err != nil {
		return fmt.Errorf("ipv6-addresses: %w", err)
	}
	if d.Leases != "" {
		if err := oneOf(string(d.Leases), leaseStoreValues); err != nil {
			return fmt.Errorf("leases: %w", err)
		}
	}
	if err := d.validOnOutage(); err != nil {
		return err
	}
	if d.Allocate != "" {
		if err := oneOf(string(d.Allocate), allocateValues); err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
	}
	return d.validMACFrom()
}

func (d *Definition) validMACFrom() error {
	if d.MACFrom == "" {
		return nil
	}
	if err := oneOf(string(d.MACFrom), macFromValues); err != nil {
		return fmt.Errorf("mac-from: %w", err)
	}
	if d.MACFrom != MACFromAddress {
		return nil
	}
	if d.SharesMAC() {
		return fmt.Errorf("mac-from: %q has no effect in mode %s, in which the container has the parent's MAC: omit it",
			d.MACFrom, d.Mode)
	}
	if !slices.ContainsFunc(d.Subnets, func(s Subnet) bool { return s.Subnet.Addr().Is4() }) {
		return fmt.Errorf("mac-from: %q needs an IPv4 subnet: add one, or omit it", d.MACFrom)
	}
	return nil
}
