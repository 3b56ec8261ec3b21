package main

import (
	"math/big"
	"net/netip"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/network"
)

// hostSlice is the value of --host-slice: part number of parts equal parts, from 1.
type hostSlice struct{ number, parts int64 }

// maxParts is the maximum number of parts, and so of hosts.
const maxParts = 4096

// sliceSubnets replaces the ranges of subnets by this host's part of them, if --host-slice is set. A
// subnet without ranges is one range. All hosts calculate the same parts from the same definition.
func sliceSubnets(c *cli.Context, subnets []network.Subnet) error {
	word := c.String("host-slice")
	if word == "" {
		return nil
	}
	number, parts, _ := strings.Cut(word, "/")
	var s hostSlice
	var err, perr error
	s.number, err = strconv.ParseInt(number, 10, 64)
	s.parts, perr = strconv.ParseInt(parts, 10, 64)
	switch {
	case err != nil || perr != nil || s.number < 1 || s.number > s.parts || s.parts > maxParts:
		return usagef("--host-slice %q is not NUMBER/HOSTS, such as 2/8 for the second of 8 hosts (at most %d)", word,
			maxParts)
	case c.String("leases") != "":
		return usagef("--host-slice and --leases contradict each other: hosts that share leases share the whole range")
	case len(subnets) == 0:
		return usagef("--host-slice needs --subnet")
	}
	for i := range subnets {
		whole := subnets[i].Ranges
		if len(whole) == 0 {
			whole = []netip.Prefix{subnets[i].Subnet}
		}
		var own []netip.Prefix
		for _, p := range whole {
			some := s.of(p)
			if len(some) == 0 {
				return usagef("--host-slice %s: %s has fewer than %d addresses", word, p, s.parts)
			}
			own = append(own, some...)
		}
		subnets[i].Ranges = own
	}
	return nil
}

// of returns the part of p: the addresses with the offsets from size*(number-1)/parts, rounded down,
// up to but without size*number/parts, as the fewest prefixes. It returns none if p has fewer
// addresses than parts.
func (s hostSlice) of(p netip.Prefix) (own []netip.Prefix) {
	hostBits := uint(p.Addr().BitLen() - p.Bits())
	size := new(big.Int).Lsh(big.NewInt(1), hostBits)
	if size.Cmp(big.NewInt(s.parts)) < 0 {
		return nil
	}
	bound := func(n int64) *big.Int {
		b := new(big.Int).Mul(size, big.NewInt(n))
		return b.Div(b, big.NewInt(s.parts))
	}
	first := new(big.Int).SetBytes(p.Addr().AsSlice())
	for from, end := bound(s.number-1), bound(s.number); from.Cmp(end) < 0; {
		left := new(big.Int).Sub(end, from)
		bits := uint(left.BitLen() - 1) // the largest power of two that is left, and that from is aligned to
		if from.Sign() > 0 {
			bits = min(bits, from.TrailingZeroBits())
		}
		raw := new(big.Int).Add(first, from).FillBytes(make([]byte, p.Addr().BitLen()/8))
		a, _ := netip.AddrFromSlice(raw) // it has the length of an address
		own = append(own, netip.PrefixFrom(a, p.Addr().BitLen()-int(bits)))
		from.Add(from, new(big.Int).Lsh(big.NewInt(1), bits))
	}
	return own
}
