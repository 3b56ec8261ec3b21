package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
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

// ranges gives where Next looks, in order.
func (p Pool) ranges() []netip.Prefix {
	if len(p.Ranges) == 0 {
		return []netip.Prefix{p.Subnet}
	}
	return p.Ranges
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

// MAC derives an interface's MAC from its address: 02:42 and the IPv4 address,
// as Docker does, so that an address always has the same one. For IPv6 it is
// derived as MACIn does, from the address alone.
func MAC(a netip.Addr) net.HardwareAddr {
	if !a.Is4() {
		return MACIn("", a)
	}
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// MACIn derives a MAC from a network and an address: for the second of two equal
// addresses on one trunk. It is unicast and locally administered (IEEE 802-2014
// §8.4), and never begins with 02:42.
func MACIn(network string, a netip.Addr) net.HardwareAddr {
	sum := sha256.Sum256([]byte(network + "\x00" + a.String()))
	sum[0] = sum[0]&^0x03 | 0x02
	if sum[0] == 0x02 && sum[1] == 0x42 {
		sum[1]++
	}
	return net.HardwareAddr(sum[:6])
}

// Offset is how far an address is into its subnet, as a number. Of subnets
// wider than 64 bits only the low 64 count: nobody fills more.
func (p Pool) Offset(a netip.Addr) uint64 { return low(a) - low(p.Subnet.Masked().Addr()) }

// At is the address at an offset: the opposite of Offset.
func (p Pool) At(offset uint64) netip.Addr {
	base := p.Subnet.Masked().Addr()
	b := base.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+offset)
	a := netip.AddrFrom16(b)
	if base.Is4() {
		return a.Unmap()
	}
	return a
}

func low(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// Span is a run of offsets, both ends included.
type Span struct{ First, Last uint64 }

// Spans gives where a search that begins after offset looks, in order: from
// there to the end of its range, the ranges that follow, and around to where
// it began. fresh begins at the first.
func (p Pool) Spans(after uint64, fresh bool) []Span {
	var whole []Span
	for _, r := range p.ranges() {
		whole = append(whole, Span{p.Offset(r.Masked().Addr()), p.Offset(Last(r.Masked()))})
	}
	if fresh {
		return whole
	}
	for i, s := range whole {
		if after < s.First || after > s.Last {
			continue
		}
		var spans []Span
		if after < s.Last {
			spans = append(spans, Span{after + 1, s.Last})
		}
		spans = append(spans, whole[i+1:]...)
		spans = append(spans, whole[:i]...)
		return append(spans, Span{s.First, after})
	}
	return whole
}
