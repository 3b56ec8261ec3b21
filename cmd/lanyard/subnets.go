package main

import (
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// readSubnets reads --subnet, and gives each subnet the gateway, ranges and aux
// addresses that it holds.
func readSubnets(c *cli.Context, internal bool) (subnets []network.Subnet, err error) {
	for _, w := range list(c, "subnet") {
		p, err := prefix("--subnet", w, "192.168.50.0/24")
		if err != nil {
			return nil, err
		}
		subnets = append(subnets, network.Subnet{Subnet: p})
	}
	if len(subnets) == 0 {
		return nil, usagef("--subnet is missing: give the LAN's block of addresses, such as --subnet 192.168.50.0/24")
	}
	if err := sixth(c, subnets); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		flag string
		add  func([]network.Subnet, string) error
	}{{"gateway", addGateway}, {"ip-range", addRange}, {"aux-address", addAux}} {
		for _, w := range list(c, part.flag) {
			if err := part.add(subnets, w); err != nil {
				return nil, err
			}
		}
	}
	if internal {
		return subnets, nil // nobody is sent to a gateway that was not named
	}
	for i := range subnets {
		if err := infer(&subnets[i]); err != nil {
			return nil, err
		}
	}
	return subnets, nil
}

// list is a flag that may be repeated, and hold a list, as Docker's may.
func list(c *cli.Context, flag string) (words []string) {
	for _, w := range c.StringSlice(flag) {
		words = append(words, strings.Split(w, ",")...)
	}
	return words
}

// sixth holds --ipv6 against the subnets. Docker has it for its own reasons;
// here an IPv6 subnet is enough.
func sixth(c *cli.Context, subnets []network.Subnet) error {
	if !c.Bool("ipv6") {
		return nil
	}
	for _, s := range subnets {
		if s.Subnet.Addr().Is6() {
			return nil
		}
	}
	return usagef("--ipv6 needs an IPv6 block of addresses: add one, such as --subnet fd50::/64")
}

func prefix(flag, word, example string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return p, usagef("%s %q is not a block of addresses: write it as %s", flag, word, example)
	}
	if p != p.Masked() {
		return p, usagef("%s %s has host bits set: write %s", flag, word, p.Masked())
	}
	return p, nil
}

// holding finds the subnet that an address is in.
func holding(subnets []network.Subnet, a netip.Addr) *network.Subnet {
	for i := range subnets {
		if subnets[i].Subnet.Contains(a) {
			return &subnets[i]
		}
	}
	return nil
}

// outside is the error for what fits none of the subnets.
func outside(flag, word string, subnets []network.Subnet) error {
	if len(subnets) == 1 {
		return usagef("%s %s is not in subnet %s", flag, word, subnets[0].Subnet)
	}
	return usagef("%s %s is in none of the subnets %s", flag, word, joinSubnets(subnets, ", "))
}

func addGateway(subnets []network.Subnet, word string) error {
	a, err := netip.ParseAddr(word)
	if err != nil {
		return usagef("--gateway %q is not an address", word)
	}
	s := holding(subnets, a)
	switch {
	case s == nil:
		return outside("--gateway", word, subnets)
	case s.Gateway.IsValid() && s.Gateway != a:
		return usagef("--gateway %s and --gateway %s are both in subnet %s: give one", s.Gateway, a, s.Subnet)
	}
	s.Gateway = a
	return nil
}

func addRange(subnets []network.Subnet, word string) error {
	p, err := prefix("--ip-range", word, "192.168.50.128/25")
	if err != nil {
		return err
	}
	s := holding(subnets, p.Addr())
	if s == nil || p.Bits() < s.Subnet.Bits() {
		return outside("--ip-range", word, subnets)
	}
	s.Ranges = append(s.Ranges, p)
	return nil
}

func addAux(subnets []network.Subnet, word string) error {
	name, addr, ok := cut(word)
	a, err := netip.ParseAddr(addr)
	if !ok || name == "" || err != nil {
		return usagef("--aux-address %q is not NAME=ADDRESS, such as nas=192.168.50.9", word)
	}
	s := holding(subnets, a)
	if s == nil {
		return outside("--aux-address", word, subnets)
	}
	if old, taken := s.Aux[name]; taken && old != a {
		return usagef("--aux-address %s=%s and %s=%s have one name: give them two", name, old, name, a)
	}
	if s.Aux == nil {
		s.Aux = map[string]netip.Addr{}
	}
	s.Aux[name] = a
	return nil
}

// infer takes a subnet's first usable address for its gateway, as Docker does,
// unless one was named. A subnet of one address keeps that for a container.
func infer(s *network.Subnet) error {
	if s.Gateway.IsValid() || s.Subnet.IsSingleIP() {
		return nil
	}
	s.Gateway = ipam.FirstUsable(s.Subnet)
	for name, a := range s.Aux {
		if a == s.Gateway {
			return usagef("--aux-address %s=%s would be the gateway of %s: name that with --gateway", name, a, s.Subnet)
		}
	}
	return nil
}
