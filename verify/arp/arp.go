// Package arp builds and reads the ARP frames that a prober needs, as whole
// Ethernet frames. How a frame gets onto the wire, and what an answer means,
// it leaves to others.
package arp

import (
	"errors"
	"fmt"
	"net/netip"

	wire "github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"

	"github.com/lanyard-net/lanyard/verify"
)

// Packet is what one ARP frame for IPv4 over Ethernet says (RFC 826).
type Packet struct {
	Destination verify.MAC // of the Ethernet header
	Source      verify.MAC // of the Ethernet header; may differ from Sender (VRRP, proxies)
	Reply       bool       // else a request
	Sender      verify.MAC
	SenderIP    netip.Addr // 0.0.0.0 in a probe
	Target      verify.MAC
	TargetIP    netip.Addr
}

var (
	broadcast   = verify.MACOf(ethernet.Broadcast)
	unspecified = netip.IPv4Unspecified()
)

// Probe gives the frame that asks who holds target without touching anybody's
// cache: sender IP 0.0.0.0 (RFC 5227 §2.1.1).
func Probe(mac verify.MAC, target netip.Addr) ([]byte, error) {
	return request(mac, unspecified, target)
}

// Request gives the frame that asks for target on behalf of src, which the
// one who answers may put into its cache with mac.
func Request(mac verify.MAC, src, target netip.Addr) ([]byte, error) {
	return request(mac, src, target)
}

// Announce gives the gratuitous ARP that tells everybody that addr is now at
// mac, in the form of a request (RFC 5227 §2.3).
func Announce(mac verify.MAC, addr netip.Addr) ([]byte, error) {
	return request(mac, addr, addr)
}

func request(mac verify.MAC, src, target netip.Addr) ([]byte, error) {
	return Packet{Destination: broadcast, Source: mac, Sender: mac, SenderIP: src, TargetIP: target}.Frame()
}

// Frame gives the packet as an Ethernet frame without a tag, padded with zeros
// to the 60 bytes that every Ethernet frame has on the wire. Neither a veth nor
// a packet socket pads, and a frame that a program receives in a test run must
// at least have a whole Ethernet header.
func (p Packet) Frame() ([]byte, error) {
	op := wire.OperationRequest
	if p.Reply {
		op = wire.OperationReply
	}
	packet, err := wire.NewPacket(op, p.Sender.Hardware(), p.SenderIP, p.Target.Hardware(), p.TargetIP)
	if err != nil {
		return nil, fmt.Errorf("build ARP from %q for %q: %w", p.SenderIP, p.TargetIP, err)
	}
	payload, err := packet.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return (&ethernet.Frame{
		Destination: p.Destination.Hardware(),
		Source:      p.Source.Hardware(),
		EtherType:   ethernet.EtherTypeARP,
		Payload:     payload,
	}).MarshalBinary()
}

// Parse reads an Ethernet frame. Anybody on the LAN can have sent it: what is
// not ARP for IPv4 over Ethernet, what has a tag (it belongs to another
// network), and what comes from no MAC at all is an error.
func Parse(frame []byte) (Packet, error) {
	var f ethernet.Frame
	if err := f.UnmarshalBinary(frame); err != nil {
		return Packet{}, fmt.Errorf("read Ethernet frame of %d bytes: %w", len(frame), err)
	}
	if f.VLAN != nil || f.EtherType != ethernet.EtherTypeARP {
		return Packet{}, errors.New("read ARP: not an ARP frame without a tag")
	}
	var p wire.Packet
	if err := p.UnmarshalBinary(f.Payload); err != nil {
		return Packet{}, fmt.Errorf("read ARP of %d bytes: %w", len(f.Payload), err)
	}
	switch {
	case p.HardwareType != 1 || p.HardwareAddrLength != 6:
		return Packet{}, fmt.Errorf("read ARP: hardware type %d with addresses of %d bytes, want Ethernet", p.HardwareType, p.HardwareAddrLength)
	case p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.IPLength != 4:
		return Packet{}, fmt.Errorf("read ARP: protocol %#04x with addresses of %d bytes, want IPv4", p.ProtocolType, p.IPLength)
	case p.Operation != wire.OperationRequest && p.Operation != wire.OperationReply:
		return Packet{}, fmt.Errorf("read ARP: operation %d, want a request or a reply", p.Operation)
	}
	packet := Packet{
		Destination: verify.MACOf(f.Destination),
		Source:      verify.MACOf(f.Source),
		Reply:       p.Operation == wire.OperationReply,
		Sender:      verify.MACOf(p.SenderHardwareAddr),
		SenderIP:    p.SenderIP,
		Target:      verify.MACOf(p.TargetHardwareAddr),
		TargetIP:    p.TargetIP,
	}
	if packet.Sender.IsZero() {
		return Packet{}, errors.New("read ARP: no sender MAC")
	}
	return packet, nil
}
