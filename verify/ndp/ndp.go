// Package ndp builds and reads the solicitations and advertisements of neighbours and routers that
// a prober needs (RFC 4861), as whole Ethernet frames. It neither sends frames nor interprets
// answers.
package ndp

import (
	"fmt"
	"net/netip"

	"github.com/mdlayher/ethernet"
	wire "github.com/mdlayher/ndp"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Message is the content of one frame with a neighbour solicitation or advertisement.
type Message struct {
	Destination ether.MAC  // of the Ethernet header
	Source      ether.MAC  // of the Ethernet header
	From        netip.Addr // IPv6 source; :: where the sender has no address yet
	To          netip.Addr // IPv6 destination
	Target      netip.Addr
	Advert      bool      // an advertisement (NA), otherwise a solicitation (NS)
	LinkLayer   ether.MAC // option: the target's in an NA, the sender's in an NS; zero if absent
	// Flags of an advertisement.
	Router, Solicited, Override bool
}

var (
	unspecified = netip.IPv6Unspecified()
	allNodes    = netip.IPv6LinkLocalAllNodes()
)

// Probe returns the solicitation that asks for the holder of target without changing any station's
// cache: it comes from ::, goes to the solicited-node group, and has no source link-layer option
// (RFC 4862 §5.4.2). The answer goes to all nodes. Probe returns an error if target is not an IPv6
// address.
func Probe(mac ether.MAC, target netip.Addr) ([]byte, error) {
	return solicit(Message{Source: mac, From: unspecified, Target: target})
}

// Solicit returns the solicitation that asks for target on behalf of src. The station that answers
// may cache src with mac. Solicit returns an error if an address is not IPv6, or has a zone.
func Solicit(mac ether.MAC, src, target netip.Addr) ([]byte, error) {
	return solicit(Message{Source: mac, From: src, Target: target, LinkLayer: mac})
}

func solicit(m Message) (_ []byte, err error) {
	if m.To, err = wire.SolicitedNodeMulticast(m.Target); err != nil {
		return nil, fmt.Errorf("build NS for %q: %w", m.Target, err)
	}
	m.Destination = GroupMAC(m.To)
	return m.Frame()
}

// Announce returns the unsolicited advertisement that tells all nodes that addr is now at mac, and
// overrides their cache entries (RFC 4861 §7.2.6). It returns an error if addr is not an IPv6
// address, or has a zone.
func Announce(mac ether.MAC, addr netip.Addr) ([]byte, error) {
	return Message{
		Destination: GroupMAC(allNodes), Source: mac,
		From: addr, To: allNodes, Target: addr,
		Advert: true, Override: true, LinkLayer: mac,
	}.Frame()
}

// SolicitedNode returns the Ethernet address of the group to which a solicitation for addr goes.
// The station that has addr, or is about to take it, listens there.
func SolicitedNode(addr netip.Addr) ether.MAC {
	a := addr.As16()
	return ether.MAC{0x33, 0x33, 0xff, a[13], a[14], a[15]}
}

// GroupMAC returns the Ethernet address that a multicast group maps to (RFC 2464 §7).
func GroupMAC(group netip.Addr) ether.MAC {
	a := group.As16()
	return ether.MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// Frame returns the message as an Ethernet frame without a tag. It needs no padding, since it is
// longer than the shortest Ethernet frame. Frame returns an error if an address is not IPv6, or has
// a zone.
func (m Message) Frame() ([]byte, error) {
	if m.Target.Zone() != "" || m.From.Zone() != "" {
		return nil, fmt.Errorf("build ND from %q for %q: a zone (after %%) cannot be sent", m.From, m.Target)
	}
	if !m.From.Is6() || m.From.Is4In6() || !m.To.Is6() {
		return nil, fmt.Errorf("build ND from %q to %q: want IPv6 addresses", m.From, m.To)
	}
	return m.frame(m.body())
}

// frame returns a body with the message's Ethernet and IPv6 headers.
func (m Message) frame(body wire.Message) ([]byte, error) {
	icmp, err := wire.MarshalMessageChecksum(body, m.From, m.To)
	if err != nil {
		return nil, fmt.Errorf("build ND from %q for %q: %w", m.From, m.Target, err)
	}
	return (&ethernet.Frame{
		Destination: m.Destination.Hardware(),
		Source:      m.Source.Hardware(),
		EtherType:   ethernet.EtherTypeIPv6,
		Payload:     append(ipv6Header(m.From, m.To, len(icmp)), icmp...),
	}).MarshalBinary()
}

func (m Message) body() wire.Message {
	direction := wire.Source
	if m.Advert {
		direction = wire.Target
	}
	var options []wire.Option
	if !m.LinkLayer.IsZero() {
		options = []wire.Option{&wire.LinkLayerAddress{Direction: direction, Addr: m.LinkLayer.Hardware()}}
	}
	if m.Advert {
		return &wire.NeighborAdvertisement{
			Router: m.Router, Solicited: m.Solicited, Override: m.Override,
			TargetAddress: m.Target, Options: options,
		}
	}
	return &wire.NeighborSolicitation{TargetAddress: m.Target, Options: options}
}
