package verify

import (
	"fmt"
	"net/netip"
	"slices"
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
	Parent    string     // the parent's name, as the network has it
	Trunk     string     // the trunk's name
	Tags      Tags       // what frames must carry on the trunk
	Down      string     // why nothing can leave, "" if the link is up
	Gateway   netip.Addr // zero: none to ask
	MAC       MAC        // the container's
	Asked     Instant    // when the first question went out
	Probes    int        // how many were sent to this gateway
	Now       Instant    // when the round ended
	Answer    Answer     // from the container's side; zero MAC: silent
	Other     Answer     // from another MAC; zero: none, or the prober cannot tell
	Claimants []Claimant // who else holds an address of the container's, of the gateway's family
	// Control is what the gateway answered to the parent's own MAC, asked where
	// it had left the container's without an answer. Zero MAC: silent, or not asked.
	Control Answer
	// Routers are those that advertised themselves then, of an IPv6 gateway's
	// network; nil: they were not asked.
	Routers []Answer
	// Proxies are MACs that answer for any address (proxy ARP): that they also
	// answer for a gateway says nothing of who the gateway is.
	Proxies []MAC
	// Seen is what the trunk saw of the questions for Gateway (or, without
	// one, for the container's own address). Nil: not watched, and Blind says why.
	Seen      *GatewaySeen
	VLANs     []VLANSeen
	Unwatched string
	// Ahead are the programs that may have hidden from the trunk's what is missing
	// in Seen.
	Ahead Ahead
	// Local are the MACs of this host: of its interfaces, and of other
	// endpoints on the same trunk.
	Local func(MAC) bool
}

// Judge draws the verdict: the first line of the table that the facts meet.
// What stands earlier explains what stands later (a port that is down also
// makes a gateway silent), so order is meaning here: of several faults at once
// this one is dominant, and the only one that is named.
func Judge(f Facts) Verdict {
	if why := f.bypass(); why != "" {
		f.Seen, f.Unwatched = nil, why
	}
	v := Verdict{Gateway: f.Gateway, MAC: f.Answer.MAC}
	v.RTT = f.rtt()
	for _, line := range []func(Facts) (Code, string){
		conflict, parentDown, unwatched, notSent, wrongTag, replyWrongTag, unicastFiltered, answered, macFiltered, noReply,
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

// Unseen reports whether the trunk has missed something: no question was seen, or an
// answer was heard that was not. Then Ahead is worth a look.
func (f Facts) MissedFrames() bool {
	return f.Seen != nil && (!f.asked() || !f.Answer.MAC.IsZero() && !f.Seen.fresh(f.Asked) || f.ingressMissed())
}

// deaf reports whether the parent has heard the gateway, by its packet socket, and the
// trunk's program has heard nothing of the VLAN since.
func (f Facts) ingressMissed() bool {
	return !f.Control.MAC.IsZero() && !slices.ContainsFunc(f.VLANs, func(v VLANSeen) bool { return v.VID == f.vid() && v.At >= f.Asked })
}

// vid is that of the outermost tag, 0 for none.
func (f Facts) vid() uint16 {
	if len(f.Tags) == 0 {
		return 0
	}
	return f.Tags[0].VID
}

// bypassed says who has hidden frames from the trunk's program: it has missed
// something, and somebody is ahead of it. Where nothing came back either, the
// question was dropped: that is notSent's.
func (f Facts) bypass() string {
	const text = "bypassed by %s on the %s of trunk %q, which comes before ours and ends the chain"
	switch {
	case !f.MissedFrames() || f.Answer.MAC.IsZero() && !f.Seen.fresh(f.Asked):
	case !f.asked() && len(f.Ahead.Out) > 0:
		return fmt.Sprintf(text, strings.Join(f.Ahead.Out, ", "), "egress", f.Trunk)
	case f.asked() && len(f.Ahead.In) > 0 && !f.Local(f.Answer.MAC):
		return fmt.Sprintf(text, strings.Join(f.Ahead.In, ", "), "ingress", f.Trunk)
	}
	return ""
}

// fresh reports whether a reply came after the question of this round.
func (s *GatewaySeen) fresh(asked Instant) bool {
	return s.Reply.Count > 0 && s.Reply.At >= asked
}

// rtt prefers the kernel's stamps on the trunk: they leave out how long the
// prober slept. Which of several questions a reply answers cannot be told: it
// then counts from the first.
func (f Facts) rtt() time.Duration {
	if s := f.Seen; s != nil && s.fresh(f.Asked) && s.Reply.At >= s.Asked.At && s.Asked.At >= f.Asked && f.Probes <= 1 {
		return s.Reply.At.Sub(s.Asked.At)
	}
	if !f.Answer.MAC.IsZero() {
		return f.Answer.At.Sub(f.Asked)
	}
	return 0
}

func conflict(f Facts) (Code, string) {
	if len(f.Claimants) == 0 {
		return "", ""
	}
	r := f.Claimants[0]
	switch {
	case r.SameMAC:
		return DuplicateMAC, fmt.Sprintf("another station on %s has MAC %s as well: choose another with io.lanyard.mac, and if it is a clone of this host, give it a machine-id of its own", f.where(), r.MAC)
	case r.Probing:
		return AddressConflict, fmt.Sprintf("address %s is being taken by %s on %s at the same time: start again, or give each its own", r.Addr, r.MAC.Describe(), f.where())
	case r.Link != "":
		return AddressConflict, fmt.Sprintf("address %s is this host's own, on %q: take it off there, or exclude it with --aux-address", r.Addr, r.Link)
	}
	return AddressConflict, fmt.Sprintf("address %s is held by %s on %s: free it there, or exclude it with --aux-address", r.Addr, r.MAC.Describe(), f.where())
}

func parentDown(f Facts) (Code, string) {
	if f.Down == "" {
		return "", ""
	}
	return ParentDown, f.Down
}

func unwatched(f Facts) (Code, string) {
	switch {
	case f.Seen != nil:
		return "", ""
	case f.Gateway.IsValid() && f.Answer.MAC.IsZero() && !f.Control.MAC.IsZero():
		return macFiltered(f)
	case f.Gateway.IsValid() && f.Answer.MAC.IsZero():
		return GatewaySilent, fmt.Sprintf("gateway %s did not answer within %s on %s%s; tags were not watched: %s", f.Gateway, f.waited(), f.where(), f.routersText(), f.Unwatched)
	case f.Gateway.IsValid() && !f.Other.MAC.IsZero() && f.contradicts(f.Answer.MAC, f.Other.MAC):
		return GatewayConflict, f.conflictText(f.Answer.MAC, f.Other.MAC)
	case !f.Gateway.IsValid():
		return Unobserved, "no gateway to ask, and tags were not watched: " + f.Unwatched
	}
	return Unobserved, fmt.Sprintf("gateway %s answered from %s; tags were not watched: %s", f.Gateway, f.Answer.MAC, f.Unwatched)
}

func (f Facts) asked() bool { return f.Seen.Asked.Count > 0 && f.Seen.Asked.At >= f.Asked }

func notSent(f Facts) (Code, string) {
	if f.asked() || f.Seen.fresh(f.Asked) {
		return "", ""
	}
	if !f.Answer.MAC.IsZero() {
		return OKLocal, f.localText()
	}
	suspect := "look for a tc filter or nftables netdev rule on them that drops it"
	if len(f.Ahead.Out) > 0 {
		suspect = fmt.Sprintf("look at %s, which comes before ours there", strings.Join(f.Ahead.Out, ", "))
	}
	return NotSent, fmt.Sprintf("no probe from %q reached trunk %q: %s", f.Parent, f.Trunk, suspect)
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

// replyTag: what the container itself has heard came with the right tags, or it
// would not have got there. Then another VLAN's router only has the same address,
// as fe80::1 often is, and told all of it meanwhile.
func replyWrongTag(f Facts) (Code, string) {
	if !f.Seen.fresh(f.Asked) || f.Seen.Reply.Tags.Equal(f.Tags) || !f.Answer.MAC.IsZero() {
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
	mac := f.Seen.MAC
	if !f.Seen.Reply.Tags.Equal(f.Tags) {
		mac = f.Answer.MAC // see replyTag
	}
	if !replied || f.Local(mac) {
		return OKLocal, f.localText()
	}
	if s := f.Seen; !s.Other.IsZero() && s.OtherAt >= f.Asked && f.contradicts(s.MAC, s.Other) {
		return GatewayConflict, f.conflictText(s.MAC, s.Other)
	}
	text := fmt.Sprintf("gateway %s (%s) answered in %s on %s", f.Gateway, mac, round(f.rtt()), f.Tags)
	if f.Probes >= lateProbes {
		text += fmt.Sprintf(", not before %d probes: the gateway is slow, or the switch port was still starting (spanning tree: set it to edge, portfast)", f.Probes)
	}
	return OK, text
}

func (f Facts) conflictText(a, b MAC) string {
	return fmt.Sprintf("gateway %s is answered for by %s and %s on %s: one of them is not the gateway", f.Gateway, a.Describe(), b.Describe(), f.where())
}

// lateProbes is from how many probes on an answer counts as late: the third
// leaves after three sixteenths of the deadline.
const lateProbes = 3

// rivals reports whether two MACs that answer for one gateway contradict each
// other. Two virtual ones are the members of a group (GLBP gives each asker
// another); one that answers for whatever is asked is a proxy.
func (f Facts) contradicts(a, b MAC) bool {
	group := a.Virtual() && b.Virtual()
	return !group && !slices.Contains(f.Proxies, a) && !slices.Contains(f.Proxies, b)
}

// Indirect reports whether all that came back from an IPv6 gateway went to all
// nodes: that it could reach the container's own MAC is not proven then.
func (f Facts) Indirect() bool {
	return f.Gateway.Is6() && f.Seen != nil && f.Seen.fresh(f.Asked) && f.Seen.Direct < f.Asked
}

// unreached: what goes to all comes in, and what goes to the container does not.
func unicastFiltered(f Facts) (Code, string) {
	if !f.Indirect() {
		return "", ""
	}
	return macFiltered(f)
}

// filtered: the way to the gateway is whole for one MAC and not for another.
func macFiltered(f Facts) (Code, string) {
	if f.Control.MAC.IsZero() {
		return "", ""
	}
	if f.Seen != nil && len(f.Ahead.In) > 0 && f.ingressMissed() {
		return GatewaySilent, fmt.Sprintf("gateway %s (%s) answers %q, and nothing of it passes the ingress of trunk %q: look at %s, which comes before ours there", f.Gateway, f.Control.MAC, f.Parent, f.Trunk, strings.Join(f.Ahead.In, ", "))
	}
	return MACFiltered, fmt.Sprintf("gateway %s (%s) answers the MAC of parent %q and not %s on %s: let the switch port have several MACs (port security), or the hypervisor's port (promiscuous mode, forged transmits, MAC spoofing)", f.Gateway, f.Control.MAC, f.Parent, f.MAC, f.where())
}

func noReply(f Facts) (Code, string) {
	var heard []string
	for _, v := range f.VLANs {
		// A link on the parent that was made since the trunk was last told of such links
		// is not the wire.
		if v.Frames == 0 || f.Now.Sub(v.At) > aliveFor || f.Local(v.MAC) {
			continue
		}
		if v.VID == f.vid() {
			return GatewaySilent, f.silentText(v.At)
		}
		heard = append(heard, vlanName(v.VID))
	}
	others := "nothing else was heard either"
	if len(heard) > 0 {
		others = "heard: " + strings.Join(heard, ", ")
	}
	none, carries := "no frame of "+f.Tags.String(), f.Tags.String()
	if len(f.Tags) == 0 {
		none, carries = "no untagged frame", "untagged frames"
	}
	return VLANSilent, fmt.Sprintf("gateway %s did not answer within %s and %s came in on trunk %q (%s): check that the switch port carries %s", f.Gateway, f.waited(), none, f.Trunk, others, carries)
}

// routersText says whether anybody calls themselves a router where the gateway is
// silent: who does may be the gateway, by another address than the network says.
func (f Facts) routersText() string {
	switch {
	case f.Routers == nil:
		return ""
	case len(f.Routers) == 0:
		return " and no router advertises itself (RA)"
	}
	r := f.Routers[0]
	return fmt.Sprintf(" and router %s (%s) advertises itself (RA)", r.Addr, r.MAC.Describe())
}

// silentText: of two tags the trunk's histogram knows the outer one. Where that was
// heard before the question only, the port may have lost it since.
func (f Facts) silentText(heard Instant) string {
	alive, also := f.Tags.String(), ""
	if n := len(f.Tags); n > 1 {
		alive, also = f.Tags[:1].String(), fmt.Sprintf(", and that %s is carried inside", f.Tags[n-1:])
	}
	if heard < f.Asked {
		also += fmt.Sprintf(", and that the switch port still carries %s, last heard %s ago", alive, round(f.Now.Sub(heard)))
	}
	if len(f.Routers) > 0 {
		also = " and its address" + also
	}
	return fmt.Sprintf("gateway %s did not answer within %s on %s, though %s is alive%s: check the gateway%s", f.Gateway, f.waited(), f.where(), alive, f.routersText(), also)
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
