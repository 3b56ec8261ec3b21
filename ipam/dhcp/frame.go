package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// UDP ports of servers and clients (RFC 2131 §4.1).
const (
	serverPort = 67
	clientPort = 68
)

// Sizes of headers, in bytes.
const (
	etherSize = 14
	ip4Size   = 20
	udpSize   = 8
)

// way is the addresses of a frame.
type way struct {
	source, dest ether.MAC
	from, to     netip.Addr
}

// broadcast returns the way of a message to all servers, from a client without an address.
func broadcast(mac ether.MAC) way {
	all := ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return way{mac, all, netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})}
}

// frame returns an Ethernet frame with a message from a client to a server.
func frame(w way, message []byte) []byte {
	b := make([]byte, etherSize+ip4Size+udpSize, etherSize+ip4Size+udpSize+len(message))
	copy(b, w.dest[:])
	copy(b[6:], w.source[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)

	ip := b[etherSize:]
	from, to := w.from.As4(), w.to.As4()
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	ip[1] = 0xc0 // CS6, as other clients
	binary.BigEndian.PutUint16(ip[2:], uint16(ip4Size+udpSize+len(message)))
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ip4Size]))

	udp := ip[ip4Size:]
	binary.BigEndian.PutUint16(udp, clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpSize+len(message)))
	b = append(b, message...)
	udp = b[etherSize+ip4Size:]
	check := ^sum(pseudo(b[etherSize:], len(udp)), udp)
	if check == 0 {
		check = 0xffff // 0 means no checksum (RFC 768)
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return b
}

// pseudo returns the sum over the pseudo header of UDP, from an IPv4 header.
func pseudo(ip []byte, length int) uint16 {
	return sum(sum(0, ip[12:20]), []byte{0, unix.IPPROTO_UDP, byte(length >> 8), byte(length)})
}

// sum adds bytes to a ones' complement sum (RFC 1071).
func sum(initial uint16, b []byte) uint16 {
	s := uint32(initial)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// errNotDHCP is returned for a frame without a whole message of a server.
var errNotDHCP = errors.New("not a message of a DHCP server")

// payload returns the message in a frame from a server to a client, and the MAC that sent it. It does
// not check the UDP checksum: frames from stations on this host have none yet.
func payload(b []byte) (message []byte, from ether.MAC, err error) {
	if len(b) < etherSize+ip4Size+udpSize || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP {
		return nil, from, errNotDHCP
	}
	copy(from[:], b[6:12])
	ip := b[etherSize:]
	head, whole := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // offset, or more fragments
	if ip[0]>>4 != 4 || head < ip4Size || whole < head+udpSize || whole > len(ip) || fragment != 0 ||
		ip[9] != unix.IPPROTO_UDP || sum(0, ip[:head]) != 0xffff {
		return nil, from, errNotDHCP
	}
	udp := ip[head:whole]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp) != serverPort || binary.BigEndian.Uint16(udp[2:]) != clientPort ||
		length < udpSize || length > len(udp) {
		return nil, from, errNotDHCP
	}
	return udp[udpSize:length], from, nil
}
