package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func (e env) networkUpdate() *cli.Command {
	return &cli.Command{
		Name:      "update",
		Usage:     "change the parent of a network, after a link was renamed or replaced",
		UsageText: "lanyard network update [OPTIONS] NAME",
		Description: `Examples:
  eth0 is called lan0 now; the running containers stay on it:
    lanyard network update web50 --parent lan0.50

  The network card eth0 was replaced by another one, enp5s0:
    lanyard network update web50 --parent enp5s0.50
    lanyard reattach web50

A sub-interface that Lanyard created gets the new name. While containers are on the earlier
link, another link is refused. All other properties stay: remove the network and create it
again to change them.`,
		Flags: []cli.Flag{
			textOption("parent", "`LINK` host link that carries the network, such as lan0 or lan0.50"),
		},
		Action: e.runNetworkUpdate,
	}
}

func (e env) runNetworkUpdate(c *cli.Context) error {
	if err := checkArgs(1, c, "NAME"); err != nil {
		return err
	}
	if c.String("parent") == "" {
		return usagef("--parent is missing: name the link that carries the network now, such as --parent lan0.50")
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	name := c.Args().First()
	blind, err := l.UpdateParent(c.Context, name, c.String("parent"))
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, name)
	if blind != "" {
		e.say("note: VLAN tags on network %q cannot be observed, so that ARP and ND alone verify gateways: %s", name, blind)
	}
	e.noteLost(c.Context, l)
	return nil
}
