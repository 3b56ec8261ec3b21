package verify

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// aliveFor is how far back a frame of the VLAN still shows that the switch
// port carries it. Longer than common hello intervals (VRRP 1 s, STP 2 s,
// OSPF 10 s, LLDP 30 s), short enough that a port moved away is noticed.
const aliveFor = 60 * time.Second

// Facts are what is known about one gateway after a round of questions, or
// about the link alone where the network has no gateway.
type Facts struct {
	Parent  string     // the parent's name, as the network has it
	Trunk   string     // the trunk's name
	Tags    Tags       // what frames must carry on the trunk
	Down    string     // why nothing can leave, "" if the link is up
	Gateway netip.Addr // zero: none to ask
	Asked   Instant    // when the first question went out
	Now     Instant    // when the round ended
	Answer  Answer     // from the container's side; zero MAC: silent
	Rivals  []Rival    // who else holds one of the addresses
	// Seen is what the trunk saw of the questions for Gateway (or, without
	// one, for the container's own address). Nil: not watched, and Blind says why.
	Seen  *GatewaySeen
	VLANs []VLANSeen
	Blind string
	// Local are the MACs of this host: of its interfaces, and of other
	// endpoints on the same trunk.
	Local func(MAC) bool
}

// Judge draws the verdict: the first line of the table that the facts meet.
// What stands earlier explains what stands later (a port that is down also
// makes a gateway silent), so order is meaning here.
func Judge(f Facts) Verdict {
	v := Verdict{Gateway: f.Gateway, MAC: f.Answer.MAC}
	v.RTT = f.rtt()
	for _, line := range []func(Facts) (Code, string){
		conflict, down, blind, notSent, wrongTag, replyTag, answered, silent,
	} {
		if v.Code, v.Text = line(f); v.Code != "" {
			break
		}
	}
	if v.MAC.IsZero() && f.Seen != nil && f.Seen.fresh(f.Asked) {
		v.MAC = f.Seen.MAC
	}
	return v
}

// fresh reports whether a reply came after the question of this round.
func (s *GatewaySeen) fresh(asked Instant) bool {
	return s.Reply.Count > 0 && s.Reply.At >= asked
}

// rtt prefers the kernel's stamps on the trunk: they leave out how long the
// prober slept. A reply older than the last question answers an earlier one.
func (f Facts) rtt() time.Duration {
	if s := f.Seen; s != nil && s.fresh(f.Asked) && s.Reply.At >= s.Asked.At && s.Asked.At >= f.Asked {
		return s.Reply.At.Sub(s.Asked.At)
	}
	if !f.Answer.MAC.IsZero() {
		return f.Answer.At.Sub(f.Asked)
	}
	return 0
}

func conflict(f Facts) (Code, string) {
	if len(f.Rivals) == 0 {
		return "", ""
	}
	r := f.Rivals[0]
	return AddressConflict, fmt.Sprintf("address %s is held by %s on %s: free it there, or exclude it with --aux-address", r.Addr, r.MAC, f.where())
}

func down(f Facts) (Code, string) {
	if f.Down == "" {
		return "", ""
	}
	return ParentDown, f.Down
}

func blind(f Facts) (Code, string) {
	switch {
	case f.Seen != nil:
		return "", ""
	case f.Gateway.IsValid() && f.Answer.MAC.IsZero():
		return GatewaySilent, fmt.Sprintf("gateway %s did not answer within %s on %s; tags were not watched: %s", f.Gateway, f.waited(), f.where(), f.Blind)
	case !f.Gateway.IsValid():
		return Unobserved, "no gateway to ask, and tags were not watched: " + f.Blind
	}
	return Unobserved, fmt.Sprintf("gateway %s answered from %s; tags were not watched: %s", f.Gateway, f.Answer.MAC, f.Blind)
}

func (f Facts) asked() bool { return f.Seen.Asked.Count > 0 && f.Seen.Asked.At >= f.Asked }

func notSent(f Facts) (Code, string) {
	if f.asked() || f.Seen.fresh(f.Asked) {
		return "", ""
	}
	if !f.Answer.MAC.IsZero() {
		return OKLocal, f.localText()
	}
	return NotSent, fmt.Sprintf("no probe from %q reached trunk %q: look for a tc filter or nftables netdev rule on them that drops it", f.Parent, f.Trunk)
}

func wrongTag(f Facts) (Code, string) {
	if !f.asked() || f.Seen.Asked.Tags.Equal(f.Tags) {
		return "", ""
	}
	got := f.Seen.Asked.Tags
	text := fmt.Sprintf("frames leave trunk %q as %s, not %s: look for a tc filter on %q or %q that changes tags", f.Trunk, got, f.Tags, f.Parent, f.Trunk)
	switch {
	case len(got) > len(f.Tags):
		return UnexpectedTag, text
	case len(got) == 0:
		return Untagged, text
	}
	return WrongVLAN, text
}

func replyTag(f Facts) (Code, string) {
	if !f.Seen.fresh(f.Asked) || f.Seen.Reply.Tags.Equal(f.Tags) {
		return "", ""
	}
	return ReplyWrongVLAN, fmt.Sprintf("gateway %s was asked on %s and answered on %s: compare the native VLAN on both ends of trunk %q", f.Gateway, f.Tags, f.Seen.Reply.Tags, f.Trunk)
}

func answered(f Facts) (Code, string) {
	if !f.Gateway.IsValid() {
		return OK, fmt.Sprintf("frames leave trunk %q as %s; the network has no gateway to ask", f.Trunk, f.Tags)
	}
	replied := f.Seen.fresh(f.Asked)
	if !replied && f.Answer.MAC.IsZero() {
		return "", ""
	}
	if !replied || f.Local(f.Seen.MAC) {
		return OKLocal, f.localText()
	}
	if old := f.Seen; !old.Other.IsZero() && old.OtherAt >= f.Asked {
		return GatewayConflict, fmt.Sprintf("gateway %s is answered for by %s and %s on %s: one of them is not the gateway", f.Gateway, old.MAC, old.Other, f.where())
	}
	return OK, fmt.Sprintf("gateway %s (%s) answered in %s on %s", f.Gateway, f.Seen.MAC, round(f.rtt()), f.Tags)
}

func silent(f Facts) (Code, string) {
	vid := uint16(0)
	if len(f.Tags) > 0 {
		vid = f.Tags[0].VID
	}
	var heard []string
	for _, v := range f.VLANs {
		if v.Frames == 0 || f.Now.Sub(v.At) > aliveFor {
			continue
		}
		if v.VID == vid {
			return GatewaySilent, fmt.Sprintf("gateway %s did not answer within %s on %s, though %s is alive: check the gateway", f.Gateway, f.waited(), f.where(), f.Tags)
		}
		heard = append(heard, vlanName(v.VID))
	}
	others := "nothing else was heard either"
	if len(heard) > 0 {
		others = "heard: " + strings.Join(heard, ", ")
	}
	return VLANSilent, fmt.Sprintf("gateway %s did not answer within %s and no frame of %s came in on trunk %q (%s): check that the switch port carries %s", f.Gateway, f.waited(), f.Tags, f.Trunk, others, f.Tags)
}

func (f Facts) localText() string {
	return fmt.Sprintf("gateway %s answered from %s, which is on this host: nothing is proven of the switch", f.Gateway, f.Answer.MAC)
}

// where names the place as an operator would look for it.
func (f Facts) where() string {
	if len(f.Tags) == 0 {
		return strconv.Quote(f.Parent)
	}
	return fmt.Sprintf("%s of %q", f.Tags, f.Trunk)
}

func (f Facts) waited() time.Duration { return round(f.Now.Sub(f.Asked)) }

func vlanName(vid uint16) string {
	if vid == 0 {
		return "untagged"
	}
	return "VLAN " + strconv.Itoa(int(vid))
}

// round keeps two or three digits: people compare these figures, machines
// have them exact.
func round(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}
