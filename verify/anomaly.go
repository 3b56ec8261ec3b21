package verify

import (
	"fmt"
	"net/netip"
)

// Kind is what kind of anomaly a trunk has seen.
type Kind string

const (
	Conflict     Kind = "conflict"      // another MAC claimed a leased address
	WrongTagOut  Kind = "wrong-tag-out" // frames left, or tried to, with tags not their network's
	WrongTagIn   Kind = "wrong-tag-in"  // frames came to the MAC with tags not their network's
	GatewayMoved Kind = "gateway-moved" // another MAC answers for a gateway than before
	SameMAC      Kind = "duplicate-mac" // another station has an endpoint's MAC
	Returned     Kind = "returned"      // frames of this host's came back: a loop, or a hairpin port
)

// Anomaly is one thing that should not be, seen on the trunk between two readings
// of the evidence.
type Anomaly struct {
	Kind        Kind       `json:"kind"`
	Count       uint64     `json:"count"`          // of frames; of a gateway's moves, those that can be told
	Addr        netip.Addr `json:"addr"`           // claimed, or the gateway's; zero for tags
	MAC         MAC        `json:"mac"`            // whose claim, or who answers now; zero for tags
	PreviousMAC MAC        `json:"previous_mac"`   // who answered before
	At          Instant    `json:"at,omitempty"`   // of the last one; zero where only its count is kept
	Text        string     `json:"text"`           // one line
	Drops       uint64     `json:"drops,omitzero"` // frames of a wrong tag that were stopped
}

// Anomalies says what was seen between two readings of one endpoint's evidence.
// A reading whose counters are below the earlier one's is of another watch over the
// same endpoint, and counts from nothing.
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
		list = append(list, Anomaly{Kind: WrongTagOut, Count: out, Drops: drops, Text: fmt.Sprintf("%s left with a wrong tag, %d of them stopped", frames(out), drops)})
	}
	if in > 0 {
		list = append(list, Anomaly{Kind: WrongTagIn, Count: in, Text: frames(in) + " came with a wrong tag"})
	}
	for i, g := range now.Gateways {
		if i < len(before.Gateways) && before.Gateways[i].movedTo(g) {
			was := before.Gateways[i].MAC
			list = append(list, Anomaly{
				Kind: GatewayMoved, Count: 1, Addr: g.Addr, MAC: g.MAC, PreviousMAC: was, At: g.Reply.At,
				Text: fmt.Sprintf("gateway %s is %s now, and was %s", g.Addr, g.MAC.Describe(), was),
			})
		}
	}
	return list
}

func (r Claimant) anomaly(count uint64) Anomaly {
	a := Anomaly{Kind: Conflict, Count: count, Addr: r.Addr, MAC: r.MAC, At: r.At}
	switch {
	case r.SameMAC:
		a.Kind, a.Text = SameMAC, fmt.Sprintf("another station has MAC %s as well", r.MAC)
	case r.Link != "":
		a.Text = fmt.Sprintf("address %s is this host's own, on %q", r.Addr, r.Link)
	default:
		a.Text = fmt.Sprintf("address %s is claimed by %s", r.Addr, r.MAC.Describe())
	}
	return a
}

// claims is how often a rival had claimed an address by then. The trunk keeps one
// rival of each address: another begins anew.
func (e Evidence) claimsOf(r Claimant) uint32 {
	for _, old := range e.Claimants {
		if old.Addr == r.Addr && old.MAC == r.MAC && old.Count <= r.Count {
			return old.Count
		}
	}
	return 0
}

// movedTo: members of a group take turns, which is what they are for.
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
