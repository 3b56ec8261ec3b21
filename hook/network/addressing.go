package network

import "fmt"

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
		if err := oneOf(string(d.Allocate), allocateValues); err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
	}
	return nil
}
