package verify

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Code is a verdict in one word. Codes are stable: scripts compare them.
type Code string

const (
	OK              Code = "ok"               // request left with the right tag, reply came back with it
	OKLocal         Code = "ok-local"         // the answering MAC is on this host: nothing is proven of the switch
	Unobserved      Code = "unobserved"       // answered, but the trunk could not be watched
	ParentDown      Code = "parent-down"      // no carrier, or admin down
	NotSent         Code = "not-sent"         // no probe reached the trunk
	Untagged        Code = "untagged"         // probes left without the tag they need
	WrongVLAN       Code = "wrong-vlan"       // probes left with another tag
	UnexpectedTag   Code = "unexpected-tag"   // probes left with one tag too many
	ReplyWrongVLAN  Code = "reply-wrong-vlan" // the reply came back under another tag
	VLANSilent      Code = "vlan-silent"      // no reply, and nothing at all inbound on the VLAN
	GatewaySilent   Code = "gateway-silent"   // no reply, though the VLAN is alive
	MACFiltered     Code = "mac-filtered"     // the gateway answers the parent's MAC, not the container's
	AddressConflict Code = "address-conflict" // another MAC holds the address
	DuplicateMAC    Code = "duplicate-mac"    // another station has the interface's MAC
	GatewayConflict Code = "gateway-conflict" // two MACs answer for the gateway
	Unverified      Code = "unverified"       // verification was off
)

// severity orders codes: of several gateways' verdicts the worst is the
// attachment's. What harms others is worst, then what hides the most.
var severity = []Code{
	Unverified, OK, OKLocal, Unobserved, GatewayConflict, ReplyWrongVLAN,
	MACFiltered, GatewaySilent, VLANSilent, NotSent, ParentDown,
	UnexpectedTag, WrongVLAN, Untagged, DuplicateMAC, AddressConflict,
}

// Good reports whether the gateway was heard where it should be.
func (c Code) Good() bool {
	return c == OK || c == OKLocal || c == Unobserved
}

// Fatal reports whether an attach must fail. A wrong tag on the way out, an address
// conflict and a duplicate MAC harm others, so they are fatal in every mode but Off;
// Strict adds whatever is not Good.
func (c Code) Fatal(m Mode) bool {
	switch c {
	case Untagged, WrongVLAN, UnexpectedTag, AddressConflict, DuplicateMAC:
		return m != Off
	case Unverified:
		return false
	}
	return m == Strict && !c.Good()
}

// Verdict is one code and one sentence, and the figures behind them.
type Verdict struct {
	Code    Code          `json:"code"`
	Text    string        `json:"text"`
	Gateway netip.Addr    `json:"gateway"`          // zero where the network has none
	MAC     MAC           `json:"gateway_mac"`      // who answered for it
	RTT     time.Duration `json:"rtt_ns,omitempty"` // the trunk's where it saw both frames, else the prober's
}

// Worst gives the verdict that weighs most; of equals, the first. It
// panics on an empty list: even a network without a gateway has one verdict.
func Worst(vs []Verdict) Verdict {
	return slices.MaxFunc(vs, func(a, b Verdict) int {
		return cmp.Compare(slices.Index(severity, a.Code), slices.Index(severity, b.Code))
	})
}
