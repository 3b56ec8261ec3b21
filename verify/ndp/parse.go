package ndp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/ethernet"
	wire "github.com/mdlayher/ndp"

	"github.com/lanyard-net/lanyard/hook/ether"
)

const (
	headerLen = 40
	protocol  = 58  // ICMPv6
	hopLimit  = 255 // RFC 4861 §7.1: a router would have decremented it
)

func ipv6Header(from, to netip.Addr, payload int) []byte {
	h := make([]byte, headerLen)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = protocol, hopLimit
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	return h
}

// Parse reads an Ethernet frame. Any station on the LAN can have sent it. Parse returns an error if
// the frame is not a neighbour solicitation or advertisement that is valid by RFC 4861 §7.1.1 or
// §7.1.2, if it has a tag (it then belongs to another network), or if it has an extension header
// (RFC 6980: fragments can hide the content from filters).
func Parse(frame []byte) (Message, error) {
	m, body, err := open(frame)
	if err != nil {
		return Message{}, err
	}
	switch body := body.(type) {
	case *wire.NeighborSolicitation:
		m.Target = body.TargetAddress
		m.LinkLayer = linkLayer(body.Options, wire.Source)
	case *wire.NeighborAdvertisement:
		m.Advert, m.Target = true, body.TargetAddress
		m.Router, m.Solicited, m.Override = body.Router, body.Solicited, body.Override
		m.LinkLayer = linkLayer(body.Options, wire.Target)
	default:
		return Message{}, fmt.Errorf("read ND: a %T is not a neighbour solicitation or advertisement", body)
	}
	return m, m.check()
}

// open reads the part of a frame that all messages of the protocol have in common.
func open(frame []byte) (m Message, body wire.Message, err error) {
	var f ethernet.Frame
	if err := f.UnmarshalBinary(frame); err != nil {
		return m, nil, fmt.Errorf("read Ethernet frame of %d bytes: %w", len(frame), err)
	}
	if f.VLAN != nil || f.EtherType != ethernet.EtherTypeIPv6 {
		return m, nil, errors.New("read ND: not an IPv6 frame without a tag")
	}
	m.Destination, m.Source = ether.MACOf(f.Destination), ether.MACOf(f.Source)
	icmp, err := m.readHeader(f.Payload)
	if err != nil {
		return m, nil, err
	}
	if body, err = wire.ParseMessage(icmp); err != nil {
		return m, nil, fmt.Errorf("read ND: %w", err)
	}
	return m, body, nil
}

// readHeader reads the IPv6 header and returns the ICMPv6 message after it.
func (m *Message) readHeader(b []byte) ([]byte, error) {
	if len(b) < headerLen || b[0]>>4 != 6 {
		return nil, fmt.Errorf("read ND: the %d bytes do not begin with an IPv6 header", len(b))
	}
	if b[6] != protocol {
		return nil, fmt.Errorf("read ND: next header %d, want ICMPv6", b[6])
	}
	if b[7] != hopLimit {
		return nil, fmt.Errorf("read ND: hop limit %d, want %d: it has passed a router", b[7], hopLimit)
	}
	// The bytes after the payload are Ethernet padding.
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < 4 || n > len(b)-headerLen {
		return nil, fmt.Errorf("read ND: payload length %d in %d bytes", n, len(b))
	}
	m.From = netip.AddrFrom16([16]byte(b[8:24]))
	m.To = netip.AddrFrom16([16]byte(b[24:40]))
	icmp := b[headerLen : headerLen+n]
	if sum := checksum(b[8:40], icmp); sum != 0xffff {
		return nil, fmt.Errorf("read ND: checksum off by %#04x", ^sum)
	}
	if icmp[1] != 0 {
		return nil, fmt.Errorf("read ND: code %d, want 0", icmp[1])
	}
	return icmp, nil
}

// check checks the rules that involve header, body and options.
func (m Message) check() error {
	switch {
	case m.Target.IsMulticast():
		return fmt.Errorf("read ND: target %s is a multicast group", m.Target)
	case m.Advert && m.Solicited && m.To.IsMulticast():
		return fmt.Errorf("read ND: an advertisement to %s cannot be solicited", m.To)
	case !m.Advert && m.From.IsUnspecified() && !m.LinkLayer.IsZero():
		return errors.New("read ND: a solicitation from :: must not have a source link-layer address")
	case !m.Advert && m.From.IsUnspecified() && !solicitedNode(m.To):
		return fmt.Errorf("read ND: a solicitation from :: to %s, want a solicited-node group", m.To)
	case m.From.IsMulticast() || m.From.Is4In6():
		return fmt.Errorf("read ND: source %s is not a unicast IPv6 address", m.From)
	case m.Source.IsZero():
		return errors.New("read ND: no source MAC")
	}
	return nil
}

func solicitedNode(a netip.Addr) bool {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff}), 104).Contains(a)
}

func linkLayer(options []wire.Option, direction wire.Direction) ether.MAC {
	for _, o := range options {
		if l, ok := o.(*wire.LinkLayerAddress); ok && l.Direction == direction {
			return ether.MACOf(l.Addr)
		}
	}
	return ether.MAC{}
}

// checksum adds up the pseudo-header (RFC 8200 §8.1) and the message. It returns 0xffff if the
// message's checksum is right.
func checksum(addresses, message []byte) uint16 {
	sum := uint32(len(message)) + protocol
	for _, b := range [][]byte{addresses, message} {
		for i := 0; i < len(b)-1; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
