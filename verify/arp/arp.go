// Package arp builds and reads the ARP frames that a prober needs, as whole Ethernet frames. It
// neither sends frames nor interprets answers.
package arp

import (
	"errors"
	"fmt"
	"net/netip"

	wire "github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Packet is the content of one ARP frame for IPv4 over Ethernet (RFC 826).
type Packet struct {
	Destination ether.MAC // of the Ethernet header
	Source      ether.MAC // of the Ethernet header; may differ from Sender (VRRP, proxies)
	Reply       bool      // a reply, otherwise a request
	Sender      ether.MAC
	SenderIP    netip.Addr // 0.0.0.0 in a probe
	Target      ether.MAC
	TargetIP    netip.Addr
}

var (
	broadcast   = ether.MACOf(ethernet.Broadcast)
	unspecified = netip.IPv4Unspecified()
)

// Probe returns the frame that asks for the holder of target without changing any station's cache:
// its sender IP is 0.0.0.0 (RFC 5227 §2.1.1). It returns an error if target is not an IPv4 address.
func Probe(mac ether.MAC, target netip.Addr) ([]byte, error) {
	return Request(mac, unspecified, target)
}

// Request returns the frame that asks for target on behalf of src. The station that answers may
// cache src with mac. Request returns an error if an address is not IPv4.
func Request(mac ether.MAC, src, target netip.Addr) ([]byte, error) {
	return Packet{Destination: broadcast, Source: mac, Sender: mac, SenderIP: src, TargetIP: target}.Frame()
}

// Announce returns the gratuitous ARP that tells all stations that addr is now at mac, in the form
// of a request (RFC 5227 §2.3). It returns an error if addr is not an IPv4 address.
func Announce(mac ether.MAC, addr netip.Addr) ([]byte, error) {
	return Request(mac, addr, addr)
}

// Frame returns the packet as an Ethernet frame without a tag, padded with zeros to the 60 bytes
// that every Ethernet frame has on the wire. Neither a veth nor a packet socket pads, and a frame
// that a program receives in a test run must at least have a whole Ethernet header. It returns an
// error if an address is not IPv4.
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

// Parse reads an Ethernet frame. Any station on the LAN can have sent it. Parse returns an error if
// the frame is not ARP for IPv4 over Ethernet, if it has a tag (it then belongs to another
// network), or if its sender MAC is zero.
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
		return Packet{}, fmt.Errorf("read ARP: hardware type %d with addresses of %d bytes, want Ethernet", p.HardwareType,
			p.HardwareAddrLength)
	case p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.IPLength != 4:
		return Packet{}, fmt.Errorf("read ARP: protocol %#04x with addresses of %d bytes, want IPv4", p.ProtocolType,
			p.IPLength)
	case p.Operation != wire.OperationRequest && p.Operation != wire.OperationReply:
		return Packet{}, fmt.Errorf("read ARP: operation %d, want a request or a reply", p.Operation)
	}
	packet := Packet{
		Destination: ether.MACOf(f.Destination),
		Source:      ether.MACOf(f.Source),
		Reply:       p.Operation == wire.OperationReply,
		Sender:      ether.MACOf(p.SenderHardwareAddr),
		SenderIP:    p.SenderIP,
		Target:      ether.MACOf(p.TargetHardwareAddr),
		TargetIP:    p.TargetIP,
	}
	if packet.Sender.IsZero() {
		return Packet{}, errors.New("read ARP: no sender MAC")
	}
	return packet, nil
}
