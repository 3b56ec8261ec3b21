package network

import (
	"fmt"
	"slices"
)

// IPAM says who gives containers their addresses.
type IPAM string

// IPAMNone gives none: the workload asks DHCP or a router itself.
const IPAMNone IPAM = "none"

// Allocate says which free address a container gets that asks for none.
type Allocate string

const (
	// AllocateSequential gives the next after the one that was given last.
	AllocateSequential Allocate = "sequential"
	// AllocateStable begins at a place that is drawn from the container's name:
	// a container that is started again gets the address that it had, where
	// that is free.
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

var macFroms = []string{string(MACFromHost), string(MACFromAddress)}

var allocates = []string{string(AllocateSequential), string(AllocateStable)}

func (d *Definition) validAddressing() error {
	switch d.IPAM {
	case "":
		if len(d.Subnets) == 0 {
			return fmt.Errorf("subnets: is empty: a network needs at least one, or \"ipam\": %q", IPAMNone)
		}
	case IPAMNone:
		switch {
		case len(d.Subnets) > 0:
			return fmt.Errorf("subnets: there is %s, but ipam %q gives no addresses: leave one of them out", d.Subnets[0].Subnet, d.IPAM)
		case len(d.Routes) > 0:
			return fmt.Errorf("routes: ipam %q gives no addresses to route from: leave one of them out", d.IPAM)
		case d.SourceRouting:
			return fmt.Errorf("source-routing: ipam %q gives no addresses to route from: leave one of them out", d.IPAM)
		}
	default:
		return fmt.Errorf("ipam: %s is not known; write %q or leave it out", clip(string(d.IPAM)), IPAMNone)
	}
	if d.Allocate != "" {
		if err := oneOf(string(d.Allocate), allocates); err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
	}
	return d.validMACFrom()
}

func (d *Definition) validMACFrom() error {
	if d.MACFrom == "" {
		return nil
	}
	if err := oneOf(string(d.MACFrom), macFroms); err != nil {
		return fmt.Errorf("mac-from: %w", err)
	}
	if d.MACFrom != MACFromAddress {
		return nil
	}
	if d.SharesMAC() {
		return fmt.Errorf("mac-from: %q has no effect in mode %s, in which the container has the parent's MAC: leave it out", d.MACFrom, d.Mode)
	}
	if !slices.ContainsFunc(d.Subnets, func(s Subnet) bool { return s.Subnet.Addr().Is4() }) {
		return fmt.Errorf("mac-from: %q needs an IPv4 subnet: add one, or leave it out", d.MACFrom)
	}
	return nil
}
