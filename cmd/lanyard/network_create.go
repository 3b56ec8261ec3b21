package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/doctor"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) networkCreate() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "define a network and prepare its parent",
		UsageText: "lanyard network create [OPTIONS] NAME",
		Description: `Examples:
  VLAN 50 on eth0; the link eth0.50 is created if it does not exist:
    lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24

  With a gateway, a range, an excluded address and strict verification:
    lanyard network create db60 --parent eth0.60 --subnet 192.168.60.0/24 \
      --gateway 192.168.60.254 --ip-range 192.168.60.128/25 \
      --aux-address nas=192.168.60.130 --verify strict

  The same with Docker's options:
    lanyard network create -d macvlan --subnet 192.168.50.0/24 \
      -o parent=eth0.50 -o macvlan_mode=bridge web50

  One MAC for all containers, where a switch port accepts no more:
    lanyard network create -d ipvlan --subnet 192.168.20.0/24 -o parent=eth0.20 ipvlan20

  User alice and the members of group net may attach rootless containers:
    lanyard network create lab70 --parent eth0.70 --subnet 192.168.70.0/24 \
      --allow-user alice --allow-group net --max-per-user 4

  An isolated network, without a parent:
    lanyard network create lab

  The host reaches the containers by a link of its own:
    lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24 \
      --host-access --host-address 192.168.50.250

  On the second of 8 hosts, which divide the range and keep their own leases:
    lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24 --host-slice 2/8

  Hosts share the range; this one has a part of it for the time when etcd is out of reach:
    lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24 \
      --leases etcd --on-outage slice --host-slice 2/8

  From a file of a configuration tool, or of "network inspect"; an array of
  definitions is created completely or not at all:
    lanyard network create --from web50.json

Without --gateway, the gateway of a subnet is its first usable address; "none" means
no gateway. Gateways, ranges and aux addresses belong to the subnet that contains them.`,
		Flags:  createFlags(),
		Action: e.runNetworkCreate,
	}
}

func (e env) runNetworkCreate(c *cli.Context) error {
	defs, err := defineAll(c)
	if err != nil {
		return err
	}
	l, err := open(c)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := checkLeases(l, defs); err != nil {
		return err
	}
	if len(defs) > 1 {
		defer e.slow("creating %d networks …", len(defs))()
	} else {
		defer e.slow("preparing parent %q …", defs[0].Parent)()
	}
	unwatched, err := l.CreateNetworks(c.Context, defs)
	if err != nil {
		return err
	}
	for i, def := range defs {
		fmt.Fprintln(e.stdout, def.Name)
		if def.Routed() && c.IsSet("gateway") {
			e.say("note: --gateway is ignored in mode %s: the host routes", def.Mode)
		}
		for _, err := range def.Unknown() {
			e.say("note: --%v: the name has no effect until it exists on this host "+
				"(directory services are not asked); a number works too", err)
		}
		for _, p := range admin.SubnetsWithoutRange(def) {
			e.say("note: network %q has no free address in %s except those that containers ask for by name: "+
				"gateway, aux addresses and host use the others", def.Name, p)
		}
		if err := e.noteHostsGateways(l, def); err != nil {
			return err
		}
		if err := e.noteShares(c.Context, l, def); err != nil {
			return err
		}
		if unwatched[i] != "" {
			e.say("note: VLAN tags on network %q cannot be observed, so that ARP and ND alone verify gateways: %s",
				def.Name, unwatched[i])
		}
	}
	for _, r := range newDoctor(l, paths(c)).Links(c.Context, defs) {
		if r.State != doctor.OK {
			e.say("note: %s: %s", r.About, r.Text)
		}
	}
	return nil
}

// noteShares notes the shares of a network that the store of leases has not confirmed.
func (e env) noteShares(ctx context.Context, l *wiring.Lanyard, def *network.Definition) error {
	shares, err := reportShares(ctx, l, def)
	for _, s := range shares {
		if !s.Confirmed {
			e.say("note: network %q: share %s of this host is not confirmed: %s: the service asks again", def.Name,
				overview.JoinPrefixes(s.Ranges), s.Why)
		}
	}
	return err
}

// noteHostsGateways notes the gateways that are addresses of this host.
func (e env) noteHostsGateways(l *wiring.Lanyard, def *network.Definition) error {
	for _, s := range def.Subnets {
		if !s.Gateway.IsValid() || def.Internal || slices.Contains(def.HostAddresses, s.Gateway) {
			continue
		}
		name, err := l.HostLinkOf(s.Gateway)
		if err != nil {
			return err
		}
		if name != "" {
			e.say("note: gateway %s of network %q is this host's own address on %q, which no %s on %q can reach: "+
				"use --host-access, or another gateway", s.Gateway, def.Name, name, def.Driver, def.Parent)
		}
	}
	return nil
}

func defineAll(c *cli.Context) ([]*network.Definition, error) {
	if c.IsSet("from") {
		return defineFrom(c)
	}
	def, err := define(c)
	return []*network.Definition{def}, err
}

// define returns the definition that the flags describe. Its errors are usage errors: it
// reads nothing of the host except the other networks' definitions.
func define(c *cli.Context) (*network.Definition, error) {
	if err := checkArgs(1, c, "NAME"); err != nil {
		return nil, err
	}
	o, err := readOptions(c)
	if err != nil {
		return nil, err
	}
	def := &network.Definition{
		Name: c.Args().First(), ID: network.NewID(), Driver: o.driver,
		Parent: o.parent.value, VLANProto: network.VLANProto(strings.ToLower(o.vlanProto.value)),
		Mode: network.ModeBridge, Flag: network.Mode(o.flag.value), Internal: c.Bool("internal"),
		GVRP: c.Bool("gvrp"), MVRP: c.Bool("mvrp"),
		ShareParent: c.Bool("share-parent"), OnLink: c.Bool("onlink"), SourceRouting: c.Bool("source-routing"),
		IPv6Mode:             network.IPv6Mode(c.String("ipv6-mode")),
		IPv6Addresses:        network.IPv6Form(c.String("ipv6-addresses")),
		Leases:               network.LeaseStore(c.String("leases")),
		OnOutage:             network.OnOutage(c.String("on-outage")),
		Allocate:             network.Allocate(c.String("allocate")),
		MACFrom:              network.MACFrom(c.String("mac-from")),
		KubernetesNamespaces: listFlag(c, "allow-namespace"), PodDefaultRoute: c.Bool("pod-default-route"),
		Verify: verify.Mode(c.String("verify")), Created: time.Now().UTC().Truncate(time.Second),
	}
	switch {
	case o.mode.value != "":
		def.Mode = network.Mode(o.mode.value)
	case def.Driver == network.DriverIPvlan:
		def.Mode = network.ModeL2
	}
	if def.Parent == "" {
		if c.IsSet("internal") && !def.Internal {
			return nil, usagef("--internal=false needs --parent: a network without a parent is isolated")
		}
		// As with Docker: a dummy link for this network, with no way out.
		def.Parent, def.Internal = network.DummyParent(def.ID), true
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
		if err := parseDuration(c, flag, into); err != nil {
			return nil, err
		}
	}
	def.DNSSearch = c.StringSlice("dns-search")
	for _, s := range c.StringSlice("dns") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, usagef("--dns %q is not an address such as 192.168.50.1", s)
		}
		def.DNS = append(def.DNS, a)
	}
	if err := readAllowed(c, def); err != nil {
		return nil, err
	}
	if err := readHostAccess(c, def); err != nil {
		return nil, err
	}
	if err := readAddressing(c, def); err != nil {
		return nil, err
	}
	return def, o.check(def)
}

// readAddressing reads the subnets, the routes and --ipam.
func readAddressing(c *cli.Context, def *network.Definition) (err error) {
	if err := readIPAM(c, def); err != nil {
		return err
	}
	// An isolated network has a gateway only if the user named one.
	if def.Subnets, err = readSubnets(c, !def.Internal && !def.Routed() && def.IPAM == ""); err != nil {
		return err
	}
	if def.Routed() {
		for i := range def.Subnets {
			def.Subnets[i].Gateway = netip.Addr{} // ignored, as Docker does; runNetworkCreate prints a note
		}
	}
	if len(def.Subnets) == 0 && def.IPAM == "" {
		if def.Parent != network.DummyParent(def.ID) {
			return usagef("--subnet is missing: give the LAN's subnet, such as --subnet 192.168.50.0/24, or --ipam none")
		}
		others, _ := network.LoadAll(paths(c).Networks)
		p, err := unusedSubnet(others)
		if err != nil {
			return err
		}
		def.Subnets = []network.Subnet{{Subnet: p}}
	}
	if def.OnOutage == network.OnOutageSlice {
		if def.HostSlice, err = readHostSlice(c); err != nil {
			return err
		}
	}
	def.Routes, err = readRoutes(c)
	return err
}

// readHostAccess reads --host-access and --host-address, which implies it.
func readHostAccess(c *cli.Context, def *network.Definition) error {
	def.HostAccess = c.Bool("host-access")
	for _, w := range listFlag(c, "host-address") {
		a, err := netip.ParseAddr(w)
		if err != nil {
			return usagef("--host-address %q is not an address such as 192.168.50.250", w)
		}
		if c.IsSet("host-access") && !def.HostAccess {
			return usagef("--host-access=false and --host-address %s contradict each other: leave one of them out", w)
		}
		def.HostAccess, def.HostAddresses = true, append(def.HostAddresses, a)
	}
	return nil
}

// withoutIPAM and withDHCP are the flags that contradict --ipam none and --ipam dhcp.
var (
	withoutIPAM = []string{"subnet", "gateway", "ip-range", "host-slice", "aux-address", "route", "leases",
		"on-outage", "allocate", "mac-from", "source-routing", "onlink", "host-access", "host-address"}
	withDHCP = []string{"ip-range", "host-slice", "aux-address", "leases", "on-outage", "allocate", "mac-from",
		"host-access", "host-address"}
)

// readIPAM reads --ipam and its docker name --ipam-driver. The docker driver "default" is
// the same as no flag, "null" gives no addresses, and podman's driver "dhcp" is the same as here.
func readIPAM(c *cli.Context, def *network.Definition) error {
	excluded := withoutIPAM
	switch v := c.String("ipam"); v {
	case "", "default":
		return nil
	case string(network.IPAMNone), "null":
		def.IPAM = network.IPAMNone
	case string(network.IPAMDHCP):
		def.IPAM, excluded = network.IPAMDHCP, withDHCP
	default:
		return usagef("--ipam (--ipam-driver) %q is not supported: use %q or %q, or leave it out", v, network.IPAMNone,
			network.IPAMDHCP)
	}
	for _, flag := range excluded {
		if c.IsSet(flag) {
			return usagef("--ipam %s and --%s contradict each other: leave one of them out", def.IPAM, flag)
		}
	}
	return nil
}

func parseDuration(c *cli.Context, flag string, into *network.Duration) error {
	v := c.String(flag)
	if v == "" {
		return nil
	}
	if err := into.UnmarshalText([]byte(v)); err != nil {
		return usagef("--%s %q is not a duration: write it as 500ms or 1.5s", flag, v)
	}
	return nil
}

// readAllowed reads the users and groups that may attach without privilege, and how.
func readAllowed(c *cli.Context, def *network.Definition) (err error) {
	def.AllowUsers, def.AllowGroups = c.StringSlice("allow-user"), c.StringSlice("allow-group")
	def.Brokered, def.Guard = network.Brokered(c.String("brokered")), network.Switch(c.String("guard"))
	if n := c.String("max-per-user"); n != "" {
		if def.MaxPerUser, err = strconv.Atoi(n); err != nil || def.MaxPerUser <= 0 {
			return usagef("--max-per-user %q is not a number of at least 1", n)
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
		key, value, _ := keyValue(w)
		if key == "" {
			return nil, usagef("--label %q has no key: write KEY=VALUE", w)
		}
		if old, twice := labels[key]; twice && old != value {
			return nil, usagef("--label %s=%s and %s contradict each other: give one", key, old, w)
		}
		labels[key] = value
	}
	return labels, nil
}
