package main

import (
	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
)

// readHostSlice returns the value of --host-slice, the zero value without it.
func readHostSlice(c *cli.Context) (s network.HostSlice, err error) {
	if word := c.String("host-slice"); word != "" {
		if err := s.UnmarshalText([]byte(word)); err != nil {
			return s, usagef("--host-slice %v", err)
		}
	}
	return s, nil
}

// sliceSubnets replaces the ranges of subnets by this host's part of them, if --host-slice is set and
// the hosts do not share leases. All hosts calculate the same parts from the same definition.
func sliceSubnets(c *cli.Context, subnets []network.Subnet) error {
	s, err := readHostSlice(c)
	switch {
	case err != nil || s == network.HostSlice{} || c.String("on-outage") == string(network.OnOutageSlice):
		return err
	case c.String("leases") != "":
		return usagef("--host-slice and --leases contradict each other without --on-outage slice: hosts that share leases " +
			"share the whole range")
	case len(subnets) == 0:
		return usagef("--host-slice needs --subnet")
	}
	for i := range subnets {
		if subnets[i].Ranges, err = s.OfSubnet(subnets[i]); err != nil {
			return usagef("--host-slice %v", err)
		}
	}
	return nil
}
