// Package echo builds ICMP and ICMPv6 echo requests that must not be fragmented, and reads the
// answers, as whole Ethernet frames. It neither sends frames nor interprets answers.
package echo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// Request is an echo request.
type Request struct {
	verify.Ends
	ID, Seq uint16
	Size    int // of the IP packet with its header, in bytes
}

// Lengths of headers in bytes.
const (
	ethernetHeader = 14
	header4        = 20
	header6        = 40
	fragmentHeader = 8 // RFC 8200 §4.5
	icmpHeader     = 8
)

// MinSize is the smallest Size of a request, of either family.
const MinSize = header6 + icmpHeader

// Frame returns the request as an Ethernet frame without a tag. It returns an error if the addresses
// are not of one family, have a zone, or if the size does not fit an IP packet.
func (r Request) Frame() ([]byte, error) {
	switch {
	case r.From.Is4() != r.To.Is4() || r.From.Is4In6() || r.To.Is4In6() || r.From.Zone()+r.To.Zone() != "":
		return nil, fmt.Errorf("build echo request from %q to %q: want addresses of one family, without a zone",
			r.From, r.To)
	case r.Size < MinSize || r.Size > 0xffff:
		return nil, fmt.Errorf("build echo request of %d bytes: want %d to %d", r.Size, MinSize, 0xffff)
	}
	build, kind := r.packet6, ethernet.EtherTypeIPv6
	if r.From.Is4() {
		build, kind = r.packet4, ethernet.EtherTypeIPv4
	}
	packet, err := build()
	if err != nil {
		return nil, fmt.Errorf("build echo request to %s: %w", r.To, err)
	}
	return (&ethernet.Frame{
		Destination: r.Destination.Hardware(), Source: r.Source.Hardware(), EtherType: kind, Payload: packet,
	}).MarshalBinary()
}

// packet4 returns the IPv4 packet, with the flag "don't fragment" (RFC 791 §3.1).
func (r Request) packet4() ([]byte, error) {
	message, err := r.message(ipv4.ICMPTypeEcho, header4, nil)
	if err != nil {
		return nil, err
	}
	const versionAndLength, dontFragment, ttl = 0x45, 0x40, 64
	b := make([]byte, header4, r.Size)
	b[0], b[6], b[8], b[9] = versionAndLength, dontFragment, ttl, unix.IPPROTO_ICMP
	binary.BigEndian.PutUint16(b[2:], uint16(r.Size))
	copy(b[12:], r.From.AsSlice())
	copy(b[16:], r.To.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, message...), nil
}

// packet6 returns the IPv6 packet, which routers never fragment.
func (r Request) packet6() ([]byte, error) {
	pseudo := icmp.IPv6PseudoHeader(r.From.AsSlice(), r.To.AsSlice())
	message, err := r.message(ipv6.ICMPTypeEchoRequest, header6, pseudo)
	if err != nil {
		return nil, err
	}
	const version, hopLimit = 0x60, 64
	b := make([]byte, header6, r.Size)
	b[0], b[6], b[7] = version, unix.IPPROTO_ICMPV6, hopLimit
	binary.BigEndian.PutUint16(b[4:], uint16(len(message)))
	copy(b[8:], r.From.AsSlice())
	copy(b[24:], r.To.AsSlice())
	return append(b, message...), nil
}

func (r Request) message(kind icmp.Type, header int, pseudo []byte) ([]byte, error) {
	body := &icmp.Echo{ID: int(r.ID), Seq: int(r.Seq), Data: make([]byte, r.Size-header-icmpHeader)}
	return (&icmp.Message{Type: kind, Body: body}).Marshal(pseudo)
}

// checksum returns the checksum of an IPv4 header (RFC 1071).
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}

// Reply is the answer to a request, or its first fragment.
type Reply struct {
	From    netip.Addr
	ID, Seq uint16
	Size    int // of the IP packet, or of the fragment, with its header, in bytes
}

// ErrNotReply is returned for a frame that is no echo reply, or not its beginning.
var ErrNotReply = errors.New("not an echo reply")

// Parse reads an Ethernet frame without a tag, of which the end may be missing. It returns
// ErrNotReply for a frame that does not begin an echo reply. It does not check checksums: the size of
// the frame is what counts, and the kernel of the other station wrote them.
func Parse(frame []byte) (Reply, error) {
	if len(frame) < ethernetHeader {
		return Reply{}, ErrNotReply
	}
	packet := frame[ethernetHeader:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return parse4(packet)
	case unix.ETH_P_IPV6:
		return parse6(packet)
	}
	return Reply{}, ErrNotReply
}

func parse4(p []byte) (Reply, error) {
	const offsetMask = 0x1fff
	if len(p) < header4 || p[9] != unix.IPPROTO_ICMP || binary.BigEndian.Uint16(p[6:])&offsetMask != 0 {
		return Reply{}, ErrNotReply
	}
	from, size := netip.AddrFrom4([4]byte(p[12:16])), int(binary.BigEndian.Uint16(p[2:]))
	return parseMessage(p, int(p[0]&0xf)*4, byte(ipv4.ICMPTypeEchoReply), Reply{From: from, Size: size})
}

func parse6(p []byte) (Reply, error) {
	if len(p) < header6 {
		return Reply{}, ErrNotReply
	}
	from, size := netip.AddrFrom16([16]byte(p[8:24])), header6+int(binary.BigEndian.Uint16(p[4:]))
	next, at := p[6], header6
	if next == unix.IPPROTO_FRAGMENT {
		if len(p) < header6+fragmentHeader || binary.BigEndian.Uint16(p[header6+2:])>>3 != 0 {
			return Reply{}, ErrNotReply
		}
		next, at = p[header6], header6+fragmentHeader
	}
	if next != unix.IPPROTO_ICMPV6 {
		return Reply{}, ErrNotReply
	}
	return parseMessage(p, at, byte(ipv6.ICMPTypeEchoReply), Reply{From: from, Size: size})
}

// parseMessage adds the fields of the ICMP message that begins at an offset of the packet.
func parseMessage(p []byte, at int, kind byte, r Reply) (Reply, error) {
	if len(p) < at+icmpHeader || p[at] != kind {
		return Reply{}, ErrNotReply
	}
	r.ID, r.Seq = binary.BigEndian.Uint16(p[at+4:]), binary.BigEndian.Uint16(p[at+6:])
	return r, nil
}
