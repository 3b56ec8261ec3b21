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

// Pool is a subnet, and which of its addresses Next may lease.
type Pool struct {
	Subnet netip.Prefix
	// Ranges limit what Next leases; if there are none, it leases from the whole subnet. An address
	// that a caller claims explicitly may be outside of them.
	Ranges []netip.Prefix
	// Reserved addresses are never leased. The value is the purpose, in words for a user:
	// "gateway", `aux-address "router2"`.
	Reserved map[netip.Addr]string
}

// String returns the subnet, and the ranges if there are any.
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

// Validate returns what is wrong with the pool, or nil. It accepts any reserved address: a gateway
// on the link need not be in the subnet.
func (p Pool) Validate() error {
	if err := canonical(p.Subnet); err != nil {
		return fmt.Errorf("subnet %q: %w", p.Subnet, err)
	}
	for i, r := range p.Ranges {
		if err := canonical(r); err != nil {
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

// canonical returns an error if a prefix is invalid or has a second spelling.
func canonical(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("not an address and prefix length")
	case p.Addr().Is4In6():
		return errors.New("an IPv4 prefix is written as IPv6")
	case p != p.Masked():
		return fmt.Errorf("bits are set beyond the prefix length: did you mean %s?", p.Masked())
	}
	return nil
}

// Check returns why no host may have address a in the pool, or nil.
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

// special returns the name of an address that no host may have, or "". A /31 (RFC 3021) and a /127
// (RFC 6164) have two host addresses and no others; a /32 and a /128 have one.
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

// Last returns the highest address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// FirstUsable returns the first address of a subnet that a host may have. It is the gateway's
// address if a definition names none.
func FirstUsable(subnet netip.Prefix) netip.Addr {
	a := subnet.Masked().Addr()
	if special(subnet.Masked(), a) != "" {
		return a.Next()
	}
	return a
}

// Span is a range of addresses, both ends included.
type Span struct{ First, Last netip.Addr }

// Spans returns the spans that a search from start goes through, in order: upwards through the
// ranges, then from the lowest address up to start. If start is not within the ranges, the search
// starts at the next address above; if start is the zero Addr, at the lowest. Spans includes
// addresses that [Pool.Check] refuses.
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

// Start maps a name to an address of the ranges. A search for the name's address starts there, so
// that the same name can get the same address again. The same name always gives the same result.
func (p Pool) Start(name string) netip.Addr {
	sum := sha256.Sum256([]byte(name))
	ranges := p.ranges()
	r := ranges[binary.BigEndian.Uint64(sum[16:])%uint64(len(ranges))]
	b := r.Masked().Addr().AsSlice()
	for i := range b {
		host := byte(0xff) // bits of the host part
		if fixed := r.Bits() - 8*i; fixed > 0 {
			host = byte(0xff >> min(fixed, 8))
		}
		b[i] |= sum[i] & host
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Size returns the number of addresses that Next can lease from an empty pool.
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

// InRanges reports whether Next may lease the address. Other addresses have to be claimed
// explicitly.
func (p Pool) InRanges(a netip.Addr) bool {
	return slices.ContainsFunc(p.ranges(), func(r netip.Prefix) bool { return r.Contains(a) })
}

// ranges returns the ranges in the order of addresses; the subnet if there are none.
func (p Pool) ranges() []netip.Prefix {
	if len(p.Ranges) == 0 {
		return []netip.Prefix{p.Subnet}
	}
	return slices.SortedFunc(slices.Values(p.Ranges), netip.Prefix.Compare)
}
