package ipam

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// AddressMAC returns the MAC 02:42 followed by an IPv4 address, and the zero MAC for an IPv6 address. Every
// host derives the same MAC from the same address.
func AddressMAC(a netip.Addr) ether.MAC {
	if !a.Is4() {
		return ether.MAC{}
	}
	b := a.As4()
	return ether.MAC{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// DerivedMAC derives a MAC from the key of a host, a network's name and the name of an interface on
// it, such as its address. The same arguments give the same MAC; another key gives another MAC. The
// MAC is unicast and locally administered (IEEE 802-2014 §8.4), and never begins with 02:42, which
// is the prefix of [AddressMAC].
func DerivedMAC(key []byte, network, name string) ether.MAC {
	sum := derive(key, network+"\x00"+name)
	sum[0] = sum[0]&^0x03 | 0x02
	if sum[0] == 0x02 && sum[1] == 0x42 {
		sum[1]++
	}
	return ether.MAC(sum[:6])
}

// DerivedSecret derives the secret of an interface's addresses (RFC 7217) from what DerivedMAC derives its MAC.
// Neither reveals the other, nor the key.
func DerivedSecret(key []byte, network, name string) [16]byte {
	return [16]byte(derive(key, "stable-privacy\x00"+network+"\x00"+name)[:16])
}

func derive(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
