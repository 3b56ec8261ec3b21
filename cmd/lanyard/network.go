package main

import (
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
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

// parent is the current state of a network's parent.
type parent struct {
	Name    string `json:"name"`
	State   string `json:"state"`         // up, down, missing or refused
	Why     string `json:"why,omitempty"` // why it is not up
	Managed bool   `json:"managed"`       // a VLAN sub-interface or dummy that Lanyard created
	Trunk   string `json:"trunk,omitempty"`
	VLAN    string `json:"vlan,omitempty"` // "50"; "100.200" for QinQ; "" for none
	MTU     int    `json:"mtu,omitempty"`
	MAC     string `json:"mac,omitempty"`
}

// inspectParent returns the state of a network's parent and changes nothing. Errors are
// in the state.
func inspectParent(l *wiring.Lanyard, def *network.Definition) parent {
	p, err := l.Parent(def)
	if err != nil {
		state := "refused"
		if errors.Is(err, link.ErrNoLink) {
			state = "missing"
		}
		return parent{Name: def.Parent, State: state, Why: err.Error()}
	}
	seen := parent{
		Name: def.Parent, State: "up", Managed: p.Ours, Trunk: p.Trunk,
		VLAN: vlan(p.Tags), MTU: p.MTU, MAC: p.MAC.String(),
	}
	why, err := l.Host.Down(p)
	if err != nil {
		why = err.Error()
	}
	if why != "" {
		seen.State, seen.Why = "down", why
	}
	return seen
}

// vlan formats tags for a column: "50", "100.200", "" for none.
func vlan(t ether.Tags) string {
	if len(t) == 0 {
		return ""
	}
	return strings.TrimPrefix(t.String(), "VLAN ")
}

// joinSubnets joins the subnets, and joinGateways their gateways.
func joinSubnets(subnets []network.Subnet, comma string) string {
	list := make([]string, len(subnets))
	for i, s := range subnets {
		list[i] = s.Subnet.String()
	}
	return strings.Join(list, comma)
}

func joinGateways(subnets []network.Subnet, comma string) string {
	var list []string
	for _, s := range subnets {
		if s.Gateway.IsValid() {
			list = append(list, s.Gateway.String())
		}
	}
	return strings.Join(list, comma)
}
