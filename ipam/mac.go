package ipam

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

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
func MACIn(network string, a netip.Addr) net.HardwareAddr { return MACNamed(network, a.String()) }

// MACNamed derives a MAC from a network and a name, in the same form: for who
// has no address that it could come from.
func MACNamed(network, name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(network + "\x00" + name))
	sum[0] = sum[0]&^0x03 | 0x02
	if sum[0] == 0x02 && sum[1] == 0x42 {
		sum[1]++
	}
	return net.HardwareAddr(sum[:6])
}
