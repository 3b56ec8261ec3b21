package dhcp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// UDP ports of DHCPv6 (RFC 8415 §7.2).
const (
	serverPort6 = 547
	clientPort6 = 546
)

const ip6Size = 40 // bytes of the header

// serversMAC and serversAddr are those of the group of all relay agents and servers.
var (
	serversMAC  = ether.MAC{0x33, 0x33, 0, 1, 0, 2}
	serversAddr = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 13: 1, 15: 2})
)

// frame6 returns an Ethernet frame with a message from a client's link-local address to all servers.
func frame6(mac ether.MAC, message []byte) []byte {
	b := make([]byte, etherSize+ip6Size+udpSize, etherSize+ip6Size+udpSize+len(message))
	copy(b, serversMAC[:])
	copy(b[6:], mac[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IPV6)

	ip := b[etherSize:]
	from, to := mac.LinkLocal().As16(), serversAddr.As16()
	ip[0], ip[6], ip[7] = 0x60, unix.IPPROTO_UDP, 1 // hop limit of multicast
	binary.BigEndian.PutUint16(ip[4:], uint16(udpSize+len(message)))
	copy(ip[8:], from[:])
	copy(ip[24:], to[:])

	udp := ip[ip6Size:]
	binary.BigEndian.PutUint16(udp, clientPort6)
	binary.BigEndian.PutUint16(udp[2:], serverPort6)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpSize+len(message)))
	b = append(b, message...)
	ip, udp = b[etherSize:], b[etherSize+ip6Size:]
	// RFC 8200 §8.1: the pseudo header has both addresses, the length and the protocol.
	check := ^sum(sum(sum(0, ip[8:40]), []byte{byte(len(udp) >> 8), byte(len(udp)), 0, unix.IPPROTO_UDP}), udp)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return b
}

// payload6 returns the message in a frame from a server or relay to a client, and its source. It does
// not check the UDP checksum: frames from stations on this host have none yet. A message behind
// extension headers is not found: servers send no such headers.
func payload6(b []byte) (message []byte, mac ether.MAC, from netip.Addr, err error) {
	if len(b) < etherSize+ip6Size+udpSize || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IPV6 {
		return nil, mac, from, errNotDHCP
	}
	copy(mac[:], b[6:12])
	ip := b[etherSize:]
	whole := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != unix.IPPROTO_UDP || whole < udpSize || whole > len(ip)-ip6Size {
		return nil, mac, from, errNotDHCP
	}
	from = netip.AddrFrom16([16]byte(ip[8:24]))
	udp := ip[ip6Size : ip6Size+whole]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != clientPort6 || length < udpSize || length > len(udp) {
		return nil, mac, from, errNotDHCP
	}
	return udp[udpSize:length], mac, from, nil
}

// filter6 returns the program of a packet socket that receives what servers and relays send to clients.
func filter6() ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append(ether.FromLAN(),
		bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherSize + 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherSize + ip6Size + 2, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort6, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	))
}
