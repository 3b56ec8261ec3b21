package verify

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Code identifies a verdict. Codes are stable: scripts compare them.
type Code string

const (
	OK              Code = "ok"               // request and reply had the right tag
	OKLocal         Code = "ok-local"         // the answering MAC is on this host: this proves nothing about the switch
	Unobserved      Code = "unobserved"       // the gateway answered, but the trunk could not be watched
	ParentDown      Code = "parent-down"      // the parent has no carrier or is administratively down
	NotSent         Code = "not-sent"         // no probe reached the trunk
	NotDelivered    Code = "not-delivered"    // the answer reached the trunk, and not the container
	Untagged        Code = "untagged"         // probes left without the tag they need
	WrongVLAN       Code = "wrong-vlan"       // probes left with a wrong tag
	UnexpectedTag   Code = "unexpected-tag"   // probes left with one tag too many
	ReplyWrongVLAN  Code = "reply-wrong-vlan" // the reply had a wrong tag
	VLANSilent      Code = "vlan-silent"      // no reply, and no inbound frame on the VLAN
	GatewaySilent   Code = "gateway-silent"   // no reply, but other frames arrive on the VLAN
	MACFiltered     Code = "mac-filtered"     // the gateway answers the parent's MAC, not the container's
	AddressConflict Code = "address-conflict" // another MAC holds the address
	DuplicateMAC    Code = "duplicate-mac"    // another station has the interface's MAC
	GatewayConflict Code = "gateway-conflict" // two MACs answer for the gateway
	Unverified      Code = "unverified"       // verification was off

	// Only a start on a network with DHCP gives these two.
	DHCPSilent    Code = "dhcp-silent"     // no server answered the requests
	DHCPWrongVLAN Code = "dhcp-wrong-vlan" // the answers had a wrong tag, or are for another subnet

	NoRouter Code = "no-router" // no router advertisement gave a usable address, or a default route

	// Only a later verification gives these: the store or a DHCP server has taken an address back, or the
	// container's root has changed the interface.
	LeaseLost        Code = "lease-lost"        // the host was cut off for too long, or the server ended the lease
	InterfaceChanged Code = "interface-changed" // another MAC, set down, without an address or default route
	InterfaceGone    Code = "interface-gone"    // not in the container's namespace
)

// severity orders the codes. The worst verdict of several gateways is the attachment's. Faults that
// harm other stations are worst, then faults that hide the most others.
var severity = []Code{
	Unverified, OK, OKLocal, Unobserved, GatewayConflict, ReplyWrongVLAN,
	NoRouter, MACFiltered, GatewaySilent, VLANSilent, DHCPSilent, DHCPWrongVLAN, NotDelivered, NotSent,
	ParentDown, InterfaceChanged, InterfaceGone, LeaseLost,
	UnexpectedTag, WrongVLAN, Untagged, DuplicateMAC, AddressConflict,
}

// Good reports whether the gateway answered as expected.
func (c Code) Good() bool {
	return c == OK || c == OKLocal || c == Unobserved
}

// Fatal reports whether an attach must fail with this verdict. A wrong outbound tag, an address
// conflict and a duplicate MAC harm other stations, so they are fatal in every mode except Off. In
// mode Strict every code that is not Good is fatal. Without a lease there is no address: that is
// fatal in all modes.
func (c Code) Fatal(m Mode) bool {
	switch c {
	case Untagged, WrongVLAN, UnexpectedTag, AddressConflict, DuplicateMAC:
		return m != Off
	case DHCPSilent, DHCPWrongVLAN:
		return true
	case Unverified:
		return false
	}
	return m == Strict && !c.Good()
}

// Verdict is a code, one sentence, and the figures behind them.
type Verdict struct {
	Code    Code          `json:"code"`
	Text    string        `json:"text"`
	Gateway netip.Addr    `json:"gateway"`          // zero if the network has none
	MAC     ether.MAC     `json:"gateway_mac"`      // the MAC that answered for it
	RTT     time.Duration `json:"rtt_ns,omitempty"` // measured on the trunk if it saw both frames, otherwise by the prober
}

// Worst returns the most severe verdict, the first of equal ones. It panics on an empty list: even
// a network without a gateway has one verdict.
func Worst(vs []Verdict) Verdict {
	return slices.MaxFunc(vs, func(a, b Verdict) int {
		return cmp.Compare(slices.Index(severity, a.Code), slices.Index(severity, b.Code))
	})
}
