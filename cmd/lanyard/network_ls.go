package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

func (e env) networkLs() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Aliases:   []string{"list"},
		Usage:     "list the defined networks",
		UsageText: "lanyard network ls [OPTIONS]",
		Description: `Examples:
  lanyard network ls
  lanyard network ls --format json | jq -r '.[] | select(.parent.state != "up") | .name'

The command needs no privilege. A definition that cannot be read is reported on stderr,
and the others are listed.`,
		Flags:  []cli.Flag{flagFormat[networkRow](), flagQuiet("names")},
		Action: e.runNetworkLs,
	}
}

// networkRow is one network in the JSON of "network ls".
type networkRow struct {
	Name    string           `json:"name"`
	Driver  string           `json:"driver"`
	Mode    network.Mode     `json:"mode"`
	Parent  overview.Parent  `json:"parent"`
	Subnets []network.Subnet `json:"subnets"`
}

func (e env) runNetworkLs(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	l, err := wiring.Open(paths(c)) // reads only: no privilege
	if err != nil {
		return err
	}
	defer l.Close()
	defs, broken := network.LoadAll(l.Networks)
	for _, err := range broken {
		e.say("%v", err)
	}
	if c.Bool("quiet") {
		for _, d := range defs {
			fmt.Fprintln(e.stdout, d.Name)
		}
		return nil
	}
	var rows []networkRow
	for _, d := range defs {
		rows = append(rows, networkRow{d.Name, d.Driver, d.Mode, overview.ParentOf(l, d), d.Subnets})
	}
	if !format.table() {
		return printRows(e.stdout, format, rows)
	}
	table := [][]string{{"NETWORK", "PARENT", "VLAN", "MODE", "SUBNET", "GATEWAY", "STATE"}}
	for _, r := range rows {
		state := r.Parent.State
		if r.Parent.Why != "" {
			state = r.Parent.Why
		}
		table = append(table, []string{
			r.Name, r.Parent.Name, r.Parent.VLAN, string(r.Mode), overview.JoinSubnets(r.Subnets, ","),
			joinGateways(r.Subnets, ","),
			state,
		})
	}
	return printTable(e.stdout, table)
}
