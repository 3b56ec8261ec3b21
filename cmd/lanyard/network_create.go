package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
)

func (e env) networkCreate() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "define a network and make its parent ready",
		UsageText: "lanyard network create [OPTIONS] NAME",
		Description: `Examples:
  VLAN 50 on eth0; the link eth0.50 is made if it is not there:
    lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24

  What the network leaves to others, and how strict a start is:
    lanyard network create db60 --parent eth0.60 --subnet 192.168.60.0/24 \
      --gateway 192.168.60.254 --ip-range 192.168.60.128/25 \
      --aux-address nas=192.168.60.130 --verify strict

  Docker's spelling does the same:
    lanyard network create -d macvlan --subnet 192.168.50.0/24 \
      -o parent=eth0.50 -o macvlan_mode=bridge web50

  Alice, and the members of net, may attach rootless containers:
    lanyard network create lab70 --parent eth0.70 --subnet 192.168.70.0/24 \
      --allow-user alice --allow-group net --max-per-user 4

Without --gateway, each subnet's first usable address is taken for it. Gateways,
ranges and aux addresses go to the subnet that holds them.`,
		Flags:  createFlags(),
		Action: e.runNetworkCreate,
	}
}

func createFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "parent", Usage: "`LINK` host link that carries the network: eth0, eth0.50, any name"},
		&cli.StringSliceFlag{Name: "subnet", Usage: "`PREFIX` the LAN's block of addresses, such as 192.168.50.0/24; one or more"},
		&cli.StringSliceFlag{Name: "gateway", Usage: "`ADDRESS` a subnet's router (default: the subnet's first usable address)"},
		&cli.StringSliceFlag{Name: "ip-range", Usage: "`PREFIX` part of a subnet that addresses are given out from (default: all of it)"},
		&cli.StringSliceFlag{Name: "aux-address", Usage: "`NAME=ADDRESS` somebody else's address, which nobody is given"},
		&cli.StringFlag{Name: "mode", Usage: "`MODE` bridge, private, vepa or passthru (default: bridge)"},
		&cli.StringFlag{Name: "mtu", Usage: "`BYTES` of containers' interfaces (default: the parent's)"},
		&cli.BoolFlag{Name: "internal", Usage: "give containers no default route"},
		&cli.BoolFlag{Name: "ipv6", Usage: "as docker has it: one of the subnets is IPv6"},
		&cli.StringSliceFlag{Name: "label", Usage: "`KEY=VALUE` kept with the network", KeepSpace: true},
		&cli.StringFlag{Name: "verify", Usage: "`MODE` off, warn or strict: a silent gateway stops a start only if strict (default: warn)"},
		&cli.StringFlag{Name: "deadline", Usage: "`TIME` how long a silent gateway is waited for (default: 1s)"},
		&cli.StringFlag{Name: "conflict-window", Usage: "`TIME` how long others have to object to an address (default: two round trips)"},
		&cli.StringFlag{Name: "quarantine", Value: "30s", Usage: "`TIME` how long a released address is kept from others (default: 30s)"},
		&cli.StringSliceFlag{Name: "allow-user", Usage: "`USER` whose rootless containers may attach, by name or number (default: nobody's)"},
		&cli.StringSliceFlag{Name: "allow-group", Usage: "`GROUP` whose members' rootless containers may attach"},
		&cli.StringFlag{Name: "max-per-user", Usage: "`NUMBER` of attachments that such a user may have (default: 8)"},
		&cli.StringFlag{Name: "brokered", Usage: "`HOW` rootless containers attach: guarded, or direct for users trusted with the LAN (default: guarded)"},
		&cli.StringFlag{Name: "driver", Aliases: []string{"d"}, Usage: "`DRIVER` macvlan, which is the only one"},
		&cli.StringSliceFlag{Name: "option", Aliases: []string{"o", "opt"}, KeepSpace: true,
			Usage: "`KEY=VALUE` docker's spelling of parent, macvlan_mode and com.docker.network.driver.mtu"},
	}
}

func (e env) runNetworkCreate(c *cli.Context) error {
	if err := exactly(1, c, "NAME"); err != nil {
		return err
	}
	def, err := define(c)
	if err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	defer e.slow("making parent %q ready …", def.Parent)()
	blind, err := l.CreateNetwork(c.Context, def)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, def.Name)
	if blind != "" {
		e.say("note: tags on network %q cannot be watched, and gateways are asked by ARP and ND alone: %s", def.Name, blind)
	}
	return nil
}

// define makes a definition of what was typed. Its errors are wrong usage:
// nothing of the host has been looked at.
func define(c *cli.Context) (*network.Definition, error) {
	o, err := readOptions(c)
	if err != nil {
		return nil, err
	}
	def := &network.Definition{
		Name: c.Args().First(), ID: network.NewID(), Driver: network.DriverMacvlan,
		Parent: o.parent.value, Mode: network.ModeBridge, Internal: c.Bool("internal"),
		Verify: network.Verify(c.String("verify")), Created: time.Now().UTC().Truncate(time.Second),
	}
	if o.mode.value != "" {
		def.Mode = network.Mode(o.mode.value)
	}
	if def.MTU, err = o.mtu.bytes(); err != nil {
		return nil, err
	}
	if def.Labels, err = labels(c.StringSlice("label")); err != nil {
		return nil, err
	}
	for flag, into := range map[string]*network.Duration{
		"deadline": &def.Deadline, "conflict-window": &def.ConflictWindow, "quarantine": &def.Quarantine,
	} {
		if err := duration(c, flag, into); err != nil {
			return nil, err
		}
	}
	if err := allow(c, def); err != nil {
		return nil, err
	}
	if def.Subnets, err = readSubnets(c, def.Internal); err != nil {
		return nil, err
	}
	return def, o.check(def)
}

func duration(c *cli.Context, flag string, into *network.Duration) error {
	v := c.String(flag)
	if v == "" {
		return nil
	}
	if err := into.UnmarshalText([]byte(v)); err != nil {
		return usagef("--%s %q is not a time: write it as 500ms or 1.5s", flag, v)
	}
	return nil
}

// allow reads who may attach without privilege.
func allow(c *cli.Context, def *network.Definition) (err error) {
	def.AllowUsers, def.AllowGroups = c.StringSlice("allow-user"), c.StringSlice("allow-group")
	def.Brokered = network.Brokered(c.String("brokered"))
	if n := c.String("max-per-user"); n != "" {
		if def.MaxPerUser, err = strconv.Atoi(n); err != nil || def.MaxPerUser <= 0 {
			return usagef("--max-per-user %q is not a number from 1 on", n)
		}
	}
	return nil
}

func labels(words []string) (map[string]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	labels := map[string]string{}
	for _, w := range words {
		key, value, _ := cut(w)
		if key == "" {
			return nil, usagef("--label %q has no key: write KEY=VALUE", w)
		}
		labels[key] = value
	}
	return labels, nil
}
