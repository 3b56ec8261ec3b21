package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func (e env) networkRm() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Aliases:   []string{"remove"},
		Usage:     "remove networks, with the VLAN sub-interfaces created for them",
		UsageText: "lanyard network rm NAME…",
		Description: `Examples:
  lanyard network rm web50
  lanyard network rm web50 db60

A network with attached containers is not removed; the error names them. Links that
existed before the network stay.`,
		Action: e.runNetworkRm,
	}
}

func (e env) runNetworkRm(c *cli.Context) error {
	if c.NArg() == 0 {
		return missingArg(c, "NAME")
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	done := e.slow("removing networks …")
	gone, errs := l.RemoveNetworks(c.Context, c.Args().Slice())
	done()
	for _, rmErr := range errs {
		e.say("%v", rmErr)
		err = errReported
	}
	for _, name := range gone {
		fmt.Fprintln(e.stdout, name)
	}
	return err
}
