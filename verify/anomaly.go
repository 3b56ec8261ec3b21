package verify

import (
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Kind is the kind of an Anomaly or an Event.
type Kind string

const (
	Conflict     Kind = "conflict"      // another MAC claimed a leased address
	WrongTagOut  Kind = "wrong-tag-out" // frames left, or tried to leave, with tags other than their network's
	WrongTagIn   Kind = "wrong-tag-in"  // frames arrived for the MAC with tags other than its network's
	GatewayMoved Kind = "gateway-moved" // a gateway's address is answered by another MAC than before
	SameMAC      Kind = "duplicate-mac" // another station uses an endpoint's MAC
	Returned     Kind = "returned"      // frames of this host were returned by a loop or a hairpin port
)

// Anomaly is a fault that the trunk has seen between two readings of one endpoint's evidence.
type Anomaly struct {
	Kind        Kind       `json:"kind"`
	Count       uint64     `json:"count"`          // frames; for GatewayMoved, the moves that two readings show
	Addr        netip.Addr `json:"addr"`           // the claimed address, or the gateway's; zero for tags
	MAC         ether.MAC  `json:"mac"`            // the claimant, or the MAC that answers now; zero for tags
	PreviousMAC ether.MAC  `json:"previous_mac"`   // the MAC that answered before
	At          Instant    `json:"at,omitempty"`   // time of the last frame; zero if only the count is known
	Text        string     `json:"text"`           // one line
	Drops       uint64     `json:"drops,omitzero"` // frames with a wrong tag that were dropped
}

// Anomalies returns what happened between two readings of one endpoint's evidence. If a counter is
// below its earlier value, the endpoint is watched again from the start, and everything in the
// later reading counts.
func Anomalies(before, now Evidence) (list []Anomaly) {
	if now.Counters.OutFrames < before.Counters.OutFrames || now.Counters.InFrames < before.Counters.InFrames {
		before = Evidence{}
	}
	for _, r := range now.Claimants {
		if n := r.Count - before.claimsOf(r); n > 0 {
			list = append(list, r.anomaly(uint64(n)))
		}
	}
	out, in := now.Counters.OutWrong-before.Counters.OutWrong, now.Counters.InWrong-before.Counters.InWrong
	if out > 0 {
		drops := now.Counters.Dropped - before.Counters.Dropped
		list = append(list, Anomaly{Kind: WrongTagOut, Count: out, Drops: drops,
			Text: fmt.Sprintf("%s sent with a wrong tag, %d of them dropped", frames(out), drops)})
	}
	if in > 0 {
		list = append(list, Anomaly{Kind: WrongTagIn, Count: in, Text: frames(in) + " arrived with a wrong tag"})
	}
	for i, g := range now.Gateways {
		if i < len(before.Gateways) && before.Gateways[i].movedTo(g) {
			was := before.Gateways[i].MAC
			list = append(list, Anomaly{
				Kind: GatewayMoved, Count: 1, Addr: g.Addr, MAC: g.MAC, PreviousMAC: was, At: g.Reply.At,
				Text: fmt.Sprintf("gateway %s moved from %s to %s", g.Addr, was, g.MAC.Describe()),
			})
		}
	}
	return list
}

func (r Claimant) anomaly(count uint64) Anomaly {
	a := Anomaly{Kind: Conflict, Count: count, Addr: r.Addr, MAC: r.MAC, At: r.At}
	switch {
	case r.SameMAC:
		a.Kind, a.Text = SameMAC, fmt.Sprintf("another station also has MAC %s", r.MAC)
	case r.Link != "":
		a.Text = fmt.Sprintf("address %s belongs to this host, on link %q", r.Addr, r.Link)
	default:
		a.Text = fmt.Sprintf("address %s is claimed by %s", r.Addr, r.MAC.Describe())
	}
	return a
}

// claimsOf returns how many claims of r's address by r's MAC the evidence has counted. The trunk
// keeps one claimant per address; the count of another claimant starts at zero.
func (e Evidence) claimsOf(r Claimant) uint32 {
	for _, old := range e.Claimants {
		if old.Addr == r.Addr && old.MAC == r.MAC && old.Count <= r.Count {
			return old.Count
		}
	}
	return 0
}

// movedTo reports whether a gateway's address is answered by another MAC than before. Members of a
// router group take turns, which is no move.
func (s GatewaySeen) movedTo(now GatewaySeen) bool {
	if s.MAC.Virtual() && now.MAC.Virtual() {
		return false
	}
	return s.Addr == now.Addr && !s.MAC.IsZero() && !now.MAC.IsZero() && s.MAC != now.MAC
}

func frames(n uint64) string {
	if n == 1 {
		return "1 frame"
	}
	return fmt.Sprintf("%d frames", n)
}
