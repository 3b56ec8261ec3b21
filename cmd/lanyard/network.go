package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
)

func (e env) network() *cli.Command {
	return &cli.Command{
		Name:      "network",
		Usage:     "define, show, change and remove networks",
		UsageText: "lanyard network COMMAND …",
		Subcommands: []*cli.Command{
			e.networkCreate(), e.networkLs(), e.networkInspect(), e.networkUpdate(), e.networkRm(), e.networkPrune(),
			e.networkSchema(),
		},
	}
}

// joinGateways joins the gateways of subnets by a separator.
func joinGateways(subnets []network.Subnet, comma string) string {
	var list []string
	for _, s := range subnets {
		if s.Gateway.IsValid() {
			list = append(list, s.Gateway.String())
		}
	}
	return strings.Join(list, comma)
}
