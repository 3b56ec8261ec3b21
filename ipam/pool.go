package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
)

// Pool is a subnet and which of its addresses are given out.
type Pool struct {
	Subnet netip.Prefix
	// Ranges limit what Next gives out; none means the whole subnet. An address
	// asked for by name may be outside.
	Ranges []netip.Prefix
	// Reserved are never given out. The value says to a person what for:
	// "gateway", `aux-address "router2"`.
	Reserved map[netip.Addr]string
}

// String is the subnet, and the ranges if there are any.
func (p Pool) String() string {
	if len(p.Ranges) == 0 {
		return "subnet " + p.Subnet.String()
	}
	var ranges []string
	for _, r := range p.Ranges {
		ranges = append(ranges, r.String())
	}
	return fmt.Sprintf("range %s of subnet %s", strings.Join(ranges, ", "), p.Subnet)
}

// Validate says what is wrong with the pool, or nil. A reserved address may be
// anywhere: a gateway on the link need not be in the subnet.
func (p Pool) Validate() error {
	if err := plain(p.Subnet); err != nil {
		return fmt.Errorf("subnet %q: %w", p.Subnet, err)
	}
	for i, r := range p.Ranges {
		if err := plain(r); err != nil {
			return fmt.Errorf("range %q: %w", r, err)
		}
		if !p.Subnet.Contains(r.Addr()) || r.Bits() < p.Subnet.Bits() {
			return fmt.Errorf("range %s is not within subnet %s", r, p.Subnet)
		}
		for _, before := range p.Ranges[:i] {
			if before.Overlaps(r) {
				return fmt.Errorf("ranges %s and %s overlap", before, r)
			}
		}
	}
	return nil
}

// plain refuses a prefix that has a second spelling.
func plain(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("it is no address and prefix length")
	case p.Addr().Is4In6():
		return errors.New("it is an IPv4 prefix written as IPv6")
	case p != p.Masked():
		return fmt.Errorf("it has bits set beyond its prefix length: did you mean %s?", p.Masked())
	}
	return nil
}

// Check says why a cannot be anybody's address in the pool, or nil.
func (p Pool) Check(a netip.Addr) error {
	if !p.Subnet.Contains(a) {
		return fmt.Errorf("address %s is not in subnet %s", a, p.Subnet)
	}
	if why := special(p.Subnet, a); why != "" {
		return fmt.Errorf("address %s is the %s of subnet %s", a, why, p.Subnet)
	}
	if why, ok := p.Reserved[a]; ok {
		return fmt.Errorf("address %s is reserved: it is the %s", a, why)
	}
	return nil
}

// special says what an address is that no host may have. A /31 (RFC 3021) and a
// /127 (RFC 6164) have two hosts and nothing else; a /32 and a /128 have one.
func special(subnet netip.Prefix, a netip.Addr) string {
	if a.BitLen()-subnet.Bits() <= 1 {
		return ""
	}
	switch {
	case a == subnet.Addr() && a.Is4():
		return "network address"
	case a == subnet.Addr():
		return "subnet-router anycast address" // RFC 4291 §2.6.1
	case a.Is4() && a == Last(subnet):
		return "broadcast address"
	}
	return ""
}

// Last is the highest address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// FirstUsable is the first address of a subnet that a host may have: where a
// gateway is looked for if none is named.
func FirstUsable(subnet netip.Prefix) netip.Addr {
	a := subnet.Masked().Addr()
	if special(subnet.Masked(), a) != "" {
		return a.Next()
	}
	return a
}

// Span is a run of addresses, both ends included.
type Span struct{ First, Last netip.Addr }

// Spans gives where a search looks that begins at start, in order: from there
// upwards through the ranges, and around to where it began. Anything else than
// an address within the ranges begins at the next one above; the zero Addr, at
// the first. What [Pool.Check] refuses is not left out.
func (p Pool) Spans(start netip.Addr) []Span {
	var above, below []Span
	for _, r := range p.ranges() {
		s := Span{r.Masked().Addr(), Last(r)}
		switch {
		case !s.First.Less(start):
			above = append(above, s)
		case s.Last.Less(start):
			below = append(below, s)
		default:
			above = append(above, Span{start, s.Last})
			below = append(below, Span{s.First, start.Prev()})
		}
	}
	return append(above, below...)
}

// Start draws an address of the ranges from a name: where to look first for an
// address that the name may have had before. The same name gives the same one.
func (p Pool) Start(name string) netip.Addr {
	sum := sha256.Sum256([]byte(name))
	ranges := p.ranges()
	r := ranges[binary.BigEndian.Uint64(sum[16:])%uint64(len(ranges))]
	b := r.Masked().Addr().AsSlice()
	for i := range b {
		host := byte(0xff) // bits that are the host's
		if fixed := r.Bits() - 8*i; fixed > 0 {
			host = byte(0xff >> min(fixed, 8))
		}
		b[i] |= sum[i] & host
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Size is how many addresses Next can give out of an empty pool.
func (p Pool) Size() *big.Int {
	n := new(big.Int)
	ranges := p.ranges()
	for _, r := range ranges {
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), uint(r.Addr().BitLen()-r.Bits())))
	}
	never := map[netip.Addr]bool{p.Subnet.Addr(): true, Last(p.Subnet): true}
	for a := range p.Reserved {
		never[a] = true
	}
	for a := range never {
		if p.Check(a) != nil && p.InRanges(a) {
			n.Sub(n, big.NewInt(1))
		}
	}
	return n
}

// InRanges says whether Next may give the address out: others can only be asked
// for by name.
func (p Pool) InRanges(a netip.Addr) bool {
	return slices.ContainsFunc(p.ranges(), func(r netip.Prefix) bool { return r.Contains(a) })
}

// ranges are in the order of addresses, and never none.
func (p Pool) ranges() []netip.Prefix {
	if len(p.Ranges) == 0 {
		return []netip.Prefix{p.Subnet}
	}
	return slices.SortedFunc(slices.Values(p.Ranges), netip.Prefix.Compare)
}
