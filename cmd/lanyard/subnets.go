package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// noGateway is the value of --gateway for networks without one.
const noGateway = "none"

// readSubnets reads --subnet, and assigns gateways, ranges and aux addresses to the
// subnets that contain them. If inferred is set, subnets without --gateway get their first
// usable address as gateway. With --host-slice, the ranges are this host's part.
func readSubnets(c *cli.Context, inferred bool) (subnets []network.Subnet, err error) {
	for _, w := range listFlag(c, "subnet") {
		p, err := parsePrefix("--subnet", w, "192.168.50.0/24")
		if err != nil {
			return nil, err
		}
		subnets = append(subnets, network.Subnet{Subnet: p})
	}
	if err := checkIPv6(c, subnets); err != nil {
		return nil, err
	}
	onLink := c.Bool("onlink")
	for _, part := range []struct {
		flag string
		add  func([]network.Subnet, string) error
	}{
		{"gateway", func(s []network.Subnet, w string) error { return addGateway(s, w, onLink) }},
		{"ip-range", addRange}, {"aux-address", addAux},
	} {
		words := listFlag(c, part.flag)
		if part.flag == "gateway" && slices.Contains(words, noGateway) {
			if o := firstOther(words, noGateway); o != noGateway {
				return nil, usagef("--gateway %s and --gateway %s contradict each other: give one", noGateway, o)
			}
			inferred = false
			continue
		}
		for _, w := range words {
			if err := part.add(subnets, w); err != nil {
				return nil, err
			}
		}
	}
	if err := sliceSubnets(c, subnets); err != nil || !inferred {
		return subnets, err
	}
	for i := range subnets {
		if err := inferGateway(&subnets[i]); err != nil {
			return nil, err
		}
	}
	return subnets, nil
}

// firstOther returns the first of the words that is not than, or than.
func firstOther(words []string, than string) string {
	for _, w := range words {
		if w != than {
			return w
		}
	}
	return than
}

// listFlag returns the values of a flag that may be repeated and may contain lists, as
// Docker's flags may.
func listFlag(c *cli.Context, flag string) (words []string) {
	for _, w := range c.StringSlice(flag) {
		words = append(words, strings.Split(w, ",")...)
	}
	return words
}

// checkIPv6 compares --ipv6 with the subnets. Lanyard does not need the flag, which exists
// for Docker's command lines: an IPv6 subnet is enough.
func checkIPv6(c *cli.Context, subnets []network.Subnet) error {
	mode := network.IPv6Mode(c.String("ipv6-mode"))
	routed := mode == network.IPv6SLAAC || mode == network.IPv6DHCP
	if !c.IsSet("ipv6") || routed && c.Bool("ipv6") {
		return nil
	}
	if routed {
		return usagef("--ipv6=false and --ipv6-mode %s contradict each other: leave one of them out", mode)
	}
	for _, s := range subnets {
		if s.Subnet.Addr().Is6() && !c.Bool("ipv6") {
			return usagef("--ipv6=false and --subnet %s contradict each other: leave one of them out", s.Subnet)
		}
		if s.Subnet.Addr().Is6() {
			return nil
		}
	}
	if !c.Bool("ipv6") {
		return nil
	}
	return usagef("--ipv6 needs an IPv6 subnet: add one, such as --subnet fd50::/64")
}

// parsePrefix reads a prefix without host bits. Errors name the flag and an example.
func parsePrefix(flag, word, example string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return p, usagef("%s %q is not a subnet: write it as %s", flag, word, example)
	}
	if p != p.Masked() {
		return p, usagef("%s %s has host bits set: write %s", flag, word, p.Masked())
	}
	return p, nil
}

// subnetOf returns the subnet that contains an address, or nil.
func subnetOf(subnets []network.Subnet, a netip.Addr) *network.Subnet {
	for i := range subnets {
		if subnets[i].Subnet.Contains(a) {
			return &subnets[i]
		}
	}
	return nil
}

// notInSubnet returns the error for an address or range that no subnet contains.
func notInSubnet(flag, word string, subnets []network.Subnet) error {
	switch len(subnets) {
	case 0:
		return usagef("%s %s needs a subnet that contains it: add --subnet", flag, word)
	case 1:
		return usagef("%s %s is not in subnet %s", flag, word, subnets[0].Subnet)
	}
	return usagef("%s %s is in none of the subnets %s", flag, word, overview.JoinSubnets(subnets, ", "))
}

func addGateway(subnets []network.Subnet, word string, onLink bool) error {
	a, err := netip.ParseAddr(word)
	if err != nil {
		return usagef("--gateway %q is not an address: give one, or %q", word, noGateway)
	}
	s := subnetOf(subnets, a)
	if s == nil && onLink {
		s = subnetWithoutGateway(subnets, a)
	}
	switch {
	case len(subnets) == 0:
		return notInSubnet("--gateway", word, subnets)
	case s == nil && onLink:
		return usagef("--gateway %s is in none of the subnets %s, and no subnet of its family is without a gateway", word,
			overview.JoinSubnets(subnets, ", "))
	case s == nil:
		return fmt.Errorf("%w; if it is on the link anyway, add --onlink", notInSubnet("--gateway", word, subnets))
	case s.Gateway.IsValid() && s.Gateway != a:
		return usagef("--gateway %s and --gateway %s are both in subnet %s: give one", s.Gateway, a, s.Subnet)
	}
	s.Gateway = a
	return nil
}

// subnetWithoutGateway returns the first subnet of the address's family that has no
// gateway, or nil.
func subnetWithoutGateway(subnets []network.Subnet, a netip.Addr) *network.Subnet {
	for i := range subnets {
		if s := &subnets[i]; s.Subnet.Addr().Is4() == a.Is4() && !s.Gateway.IsValid() {
			return s
		}
	}
	return nil
}

// readRoutes reads the flag --route.
func readRoutes(c *cli.Context) (routes []network.Route, err error) {
	for _, w := range c.StringSlice("route") {
		dst, via, ok := strings.Cut(w, ",")
		a, err := netip.ParseAddr(via)
		if !ok || err != nil {
			return nil, usagef("--route %q is not PREFIX,ROUTER, such as 10.0.0.0/8,192.168.50.254", w)
		}
		p, err := parsePrefix("--route", dst, "10.0.0.0/8")
		if err != nil {
			return nil, err
		}
		routes = append(routes, network.Route{Dst: p, Via: a})
	}
	return routes, nil
}

// unusedSubnet returns the subnet for a network without --subnet, as Docker does: the
// first block from 172.18.0.0/16 to 172.31.0.0/16 that no other network overlaps.
func unusedSubnet(others []*network.Definition) (p netip.Prefix, err error) {
	for b := byte(18); b < 32; b++ {
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b}), 16)
		if !slices.ContainsFunc(others, func(o *network.Definition) bool { return overlaps(o, p) }) {
			return p, nil
		}
	}
	return p, usagef("--subnet is missing, and no block from 172.18.0.0/16 to 172.31.0.0/16 is free: give a subnet")
}

func overlaps(d *network.Definition, p netip.Prefix) bool {
	return slices.ContainsFunc(d.Subnets, func(s network.Subnet) bool { return s.Subnet.Overlaps(p) })
}

func addRange(subnets []network.Subnet, word string) error {
	p, err := parsePrefix("--ip-range", word, "192.168.50.128/25")
	if err != nil {
		return err
	}
	s := subnetOf(subnets, p.Addr())
	if s == nil || p.Bits() < s.Subnet.Bits() {
		return notInSubnet("--ip-range", word, subnets)
	}
	s.Ranges = append(s.Ranges, p)
	return nil
}

func addAux(subnets []network.Subnet, word string) error {
	name, addr, ok := keyValue(word)
	a, err := netip.ParseAddr(addr)
	if !ok || name == "" || err != nil {
		return usagef("--aux-address %q is not NAME=ADDRESS, such as nas=192.168.50.9", word)
	}
	s := subnetOf(subnets, a)
	if s == nil {
		return notInSubnet("--aux-address", word, subnets)
	}
	if old, taken := s.Aux[name]; taken && old != a {
		return usagef("--aux-address %s=%s and %s=%s have the same name: use different names", name, old, name, a)
	}
	if s.Aux == nil {
		s.Aux = map[string]netip.Addr{}
	}
	s.Aux[name] = a
	return nil
}

// inferGateway sets a subnet's gateway to its first usable address, as Docker did before
// version 29, unless it has one. A subnet with a single address keeps it for a container.
func inferGateway(s *network.Subnet) error {
	if s.Gateway.IsValid() || s.Subnet.IsSingleIP() {
		return nil
	}
	s.Gateway = ipam.FirstUsable(s.Subnet)
	for name, a := range s.Aux {
		if a == s.Gateway {
			return usagef("--aux-address %s=%s is the default gateway of %s: set another with --gateway", name, a, s.Subnet)
		}
	}
	return nil
}
