package main

import (
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) network() *cli.Command {
	return &cli.Command{
		Name:      "network",
		Usage:     "define networks, show and remove them",
		UsageText: "lanyard network COMMAND …",
		Subcommands: []*cli.Command{
			e.networkCreate(), e.networkLs(), e.networkInspect(), e.networkRm(), e.networkPrune(), e.networkSchema(),
		},
	}
}

// parent is what stands behind a network's parent now.
type parent struct {
	Name  string `json:"name"`
	State string `json:"state"`         // up, down, missing or refused
	Why   string `json:"why,omitempty"` // if it is not up
	Ours  bool   `json:"ours"`          // a VLAN sub-interface or dummy that we made
	Trunk string `json:"trunk,omitempty"`
	VLAN  string `json:"vlan,omitempty"` // "50", "100.200" for QinQ, "" for none
	MTU   int    `json:"mtu,omitempty"`
	MAC   string `json:"mac,omitempty"`
}

// lookAt finds a network's parent, changing nothing. What cannot be found out
// is said in the state.
func inspectParent(l *wiring.Lanyard, def *network.Definition) parent {
	p, err := l.Parent(def)
	if err != nil {
		state := "refused"
		if errors.Is(err, link.ErrNoLink) {
			state = "missing"
		}
		return parent{Name: def.Parent, State: state, Why: err.Error()}
	}
	tags := make(verify.Tags, len(p.Tags))
	for i, t := range p.Tags {
		tags[i] = verify.Tag{TPID: t.Proto, VID: t.VID}
	}
	seen := parent{
		Name: def.Parent, State: "up", Ours: p.Ours, Trunk: p.Trunk,
		VLAN: vlan(tags), MTU: p.MTU, MAC: p.MAC.String(),
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

// vlan is a frame's tags as a column has them; "" for none.
func vlan(t verify.Tags) string {
	if len(t) == 0 {
		return ""
	}
	return strings.TrimPrefix(t.String(), "VLAN ")
}

// joinSubnets lists subnets, and joinGateways the gateways that they have.
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
