package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func (e env) networkPrune() *cli.Command {
	return &cli.Command{
		Name:      "prune",
		Usage:     "remove all networks without attached containers",
		UsageText: "lanyard network prune",
		Description: `Examples:
  lanyard network prune

The command prints the names of removed networks. It keeps networks with attached
containers, and definitions that cannot be read.`,
		Action: e.runNetworkPrune,
	}
}

func (e env) runNetworkPrune(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	done := e.slow("removing networks …")
	pruned, err := l.Prune(c.Context)
	done()
	for _, name := range pruned {
		fmt.Fprintln(e.stdout, name)
	}
	return err
}
