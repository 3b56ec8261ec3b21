package verify

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// aliveFor is how long after its last inbound frame a VLAN still counts as alive on the switch
// port. It is longer than common hello intervals (VRRP 1 s, STP 2 s, OSPF 10 s, LLDP 30 s), and
// short enough to notice that a port was moved to other VLANs.
const aliveFor = 60 * time.Second

// Facts are what is known about one gateway after a round of questions, or about the link alone if
// the network has no gateway.
type Facts struct {
	Parent  string     // the parent's name in the network's definition
	Trunk   string     // the trunk's name
	Tags    ether.Tags // the tags that frames must have on the trunk
	Down    string     // why no frame can leave, "" if the link is up
	Gateway netip.Addr // zero if the network has no gateway
	// GatewayLink is the link of this host that has the gateway's address, "" if none has it.
	GatewayLink string
	MAC         ether.MAC  // the container's
	Asked       Instant    // when the first question was sent
	Probes      int        // number of questions sent to this gateway
	Now         Instant    // when the round ended
	Answer      Answer     // received in the container; zero MAC: none
	Other       Answer     // from another MAC; zero: none, or the prober cannot distinguish two
	Claimants   []Claimant // other stations that hold a container's address of the gateway's family
	// Control is the gateway's answer to the parent's own MAC, which asks if the container's MAC
	// got no answer. Zero MAC: no answer, or not asked.
	Control Answer
	// Routers are the routers that then advertised themselves, for the network of an IPv6 gateway.
	// Nil: they were not asked.
	Routers []Answer
	// Proxies are MACs that answer for every address (proxy ARP). Their answer for a gateway's
	// address does not identify the gateway.
	Proxies []ether.MAC
	// Seen is what the trunk saw of the questions for Gateway, or without a gateway, for the
	// container's own address. It is nil if the trunk was not watched; Unwatched says why.
	Seen      *GatewaySeen
	VLANs     []VLANSeen
	Unwatched string
	// Ahead are the programs that may have hidden from the trunk's program what Seen lacks.
	Ahead Ahead
	// Local reports whether a MAC is one of this host: of the parent, or of a link on it.
	Local func(ether.MAC) bool
	// Port returns what is known of the switch's port, "" if nothing is; nil is the same. It is called
	// only if the port may lack the VLAN.
	Port func() string
}

// Judge returns the verdict: the first line of the table that the facts match. An earlier line
// explains a later one (a port that is down also makes a gateway silent), so the order matters. The
// lines after the one for Unwatched may assume that Seen is not nil. If
// there are several faults, this one is dominant, and it is the only one that the verdict names.
func Judge(f Facts) Verdict {
	if why := f.bypass(); why != "" {
		f.Seen, f.Unwatched = nil, why
	}
	v := Verdict{Gateway: f.Gateway, MAC: f.Answer.MAC}
	v.RTT = f.rtt()
	for _, line := range []func(Facts) (Code, string){
		conflict, parentDown, unwatched, notSent, wrongTag, replyWrongTag, heardOnly, notDelivered, answered, macFiltered,
		noReply,
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

// JudgeSilence returns the verdict on a gateway that did not answer the parent's own question, on a
// trunk that is watched. The trunk's program does not count such questions: Seen is not used.
func JudgeSilence(f Facts) Verdict {
	v := Verdict{Gateway: f.Gateway}
	v.Code, v.Text = noReply(f)
	return v
}

// MissedFrames reports whether the trunk's program has missed frames: it saw no question, or it did
// not see an answer that arrived. The caller should then fill in Ahead.
func (f Facts) MissedFrames() bool {
	return f.Seen != nil && (!f.asked() || !f.Answer.MAC.IsZero() && !f.Seen.fresh(f.Asked) || f.ingressMissed())
}

// ingressMissed reports whether the parent's packet socket has received the gateway's answer, but
// the trunk's program has seen no frame of the VLAN since.
func (f Facts) ingressMissed() bool {
	return !f.Control.MAC.IsZero() &&
		!slices.ContainsFunc(f.VLANs, func(v VLANSeen) bool { return v.VID == f.vid() && v.At >= f.Asked })
}

// vid returns the VLAN id of the outermost tag, 0 for none.
func (f Facts) vid() uint16 {
	if len(f.Tags) == 0 {
		return 0
	}
	return f.Tags[0].VID
}

// bypass returns a sentence that names the programs that have hidden frames from the trunk's
// program, and "" if there are none: frames were missed, and another program runs first. If no
// answer arrived either, the question was dropped, which is the case of notSent.
func (f Facts) bypass() string {
	const text = "bypassed by %s on the %s of trunk %q, which runs before Lanyard's program and ends the chain"
	switch {
	case !f.MissedFrames() || f.Answer.MAC.IsZero() && !f.Seen.fresh(f.Asked):
	case !f.asked() && len(f.Ahead.Out) > 0:
		return fmt.Sprintf(text, strings.Join(f.Ahead.Out, ", "), "egress", f.Trunk)
	case f.asked() && len(f.Ahead.In) > 0 && !f.Local(f.Answer.MAC):
		return fmt.Sprintf(text, strings.Join(f.Ahead.In, ", "), "ingress", f.Trunk)
	}
	return ""
}

// fresh reports whether the reply was seen after asked, the time of this round's first question.
func (s *GatewaySeen) fresh(asked Instant) bool {
	return s.Reply.Count > 0 && s.Reply.At >= asked
}

// rtt returns the round trip time. It prefers the kernel's timestamps on the trunk, which exclude
// the time that the prober slept. If several questions were sent, it is unknown which of them a
// reply answers; the time then counts from the first.
func (f Facts) rtt() time.Duration {
	s := f.Seen
	if s != nil && s.fresh(f.Asked) && s.Reply.At >= s.Asked.At && s.Asked.At >= f.Asked && f.Probes <= 1 && !f.stray() {
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
		return DuplicateMAC, fmt.Sprintf("another station on %s also has MAC %s: choose another MAC with io.lanyard.mac, "+
			"or if that station is a clone of this host, give it its own machine-id", f.where(), r.MAC)
	case r.Probing:
		return AddressConflict, fmt.Sprintf("%s on %s probes for address %s at the same time: start the container again, "+
			"or give each its own address", r.MAC.Describe(), f.where(), r.Addr)
	case r.Link != "":
		return AddressConflict, fmt.Sprintf("address %s belongs to this host, on link %q: remove it there, "+
			"or exclude it with --aux-address", r.Addr, r.Link)
	}
	return AddressConflict, fmt.Sprintf("address %s is held by %s on %s: remove it there, "+
		"or exclude it with --aux-address", r.Addr, r.MAC.Describe(), f.where())
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
	case f.Gateway.IsValid() && f.Answer.MAC.IsZero() && f.GatewayLink != "":
		return GatewaySilent, f.hostsText()
	case f.Gateway.IsValid() && f.Answer.MAC.IsZero():
		return GatewaySilent, fmt.Sprintf("gateway %s did not answer within %s on %s%s; tags were not watched: %s",
			f.Gateway, f.waited(), f.where(), f.routersText(), f.Unwatched)
	case f.Gateway.IsValid() && !f.Other.MAC.IsZero() && f.contradicts(f.Answer.MAC, f.Other.MAC):
		return GatewayConflict, f.conflictText(f.Answer.MAC, f.Other.MAC)
	case !f.Gateway.IsValid():
		return Unobserved, "no gateway to ask, and tags were not watched: " + f.Unwatched
	}
	return Unobserved, fmt.Sprintf("gateway %s answered from %s; tags were not watched: %s",
		f.Gateway, f.Answer.MAC, f.Unwatched)
}

func (f Facts) asked() bool { return f.Seen.Asked.Count > 0 && f.Seen.Asked.At >= f.Asked }

func notSent(f Facts) (Code, string) {
	if f.asked() || f.Seen.fresh(f.Asked) {
		return "", ""
	}
	if !f.Answer.MAC.IsZero() {
		return OKLocal, f.localText()
	}
	suspect := "look for a tc filter or nftables netdev rule on either that drops it"
	if len(f.Ahead.Out) > 0 {
		suspect = fmt.Sprintf("look at %s, which runs before Lanyard's program there", strings.Join(f.Ahead.Out, ", "))
	}
	return NotSent, fmt.Sprintf("no probe from %q reached trunk %q: %s", f.Parent, f.Trunk, suspect)
}

func wrongTag(f Facts) (Code, string) {
	if !f.asked() || f.Seen.Asked.Tags.Equal(f.Tags) {
		return "", ""
	}
	got := f.Seen.Asked.Tags
	text := fmt.Sprintf("frames leave trunk %q as %s, not %s: look for a tc filter on %q or %q that changes tags",
		f.Trunk, got, f.Tags, f.Parent, f.Trunk)
	switch {
	case len(got) > len(f.Tags):
		return UnexpectedTag, text
	case len(got) == 0:
		return Untagged, text
	}
	return WrongVLAN, text
}

// stray reports whether the last reply that the trunk saw is not the one that the container received:
// it has other tags, and would not have arrived. A router of another VLAN, which has the same address
// (fe80::1 is common), announced it to all nodes. Seen has neither the gateway's MAC nor its time then.
func (f Facts) stray() bool { return !f.Answer.MAC.IsZero() && !f.Seen.Reply.Tags.Equal(f.Tags) }

func replyWrongTag(f Facts) (Code, string) {
	if !f.Seen.fresh(f.Asked) || f.Seen.Reply.Tags.Equal(f.Tags) || !f.Answer.MAC.IsZero() {
		return "", ""
	}
	return ReplyWrongVLAN, fmt.Sprintf("gateway %s was asked on %s and answered on %s: compare the native VLAN "+
		"on both ends of trunk %q", f.Gateway, f.Tags, f.Seen.Reply.Tags, f.Trunk)
}

func answered(f Facts) (Code, string) {
	if !f.Gateway.IsValid() {
		return OK, fmt.Sprintf("frames leave trunk %q as %s; the network has no gateway to ask", f.Trunk, f.Tags)
	}
	if f.Answer.MAC.IsZero() {
		return "", ""
	}
	replied, mac, stray := f.Seen.fresh(f.Asked), f.Seen.MAC, f.stray()
	if stray {
		mac = f.Answer.MAC
	}
	if !replied || f.Local(mac) {
		return OKLocal, f.localText()
	}
	if s := f.Seen; !stray && !s.Other.IsZero() && s.OtherAt >= f.Asked && f.contradicts(s.MAC, s.Other) {
		return GatewayConflict, f.conflictText(s.MAC, s.Other)
	}
	text := fmt.Sprintf("gateway %s (%s) answered in %s on %s", f.Gateway, mac, round(f.rtt()), f.Tags)
	if f.Probes >= lateProbes {
		text += fmt.Sprintf(", not before %d probes: the gateway is slow, or the switch port was still starting "+
			"(spanning tree: set the port to edge, portfast)", f.Probes)
	}
	return OK, text
}

func (f Facts) conflictText(a, b ether.MAC) string {
	return fmt.Sprintf("%s and %s both answer for gateway %s on %s: one of them is not the gateway",
		a.Describe(), b.Describe(), f.Gateway, f.where())
}

// lateProbes is the number of probes from which an answer counts as late: the third probe is sent
// after three sixteenths of the deadline.
const lateProbes = 3

// contradicts reports whether two MACs that answer for one gateway contradict each other. Two
// virtual MACs are members of one group (with GLBP, each asker gets another one). A MAC that
// answers for every address is a proxy.
func (f Facts) contradicts(a, b ether.MAC) bool {
	group := a.Virtual() && b.Virtual()
	return !group && !slices.Contains(f.Proxies, a) && !slices.Contains(f.Proxies, b)
}

// Indirect reports whether all answers of a gateway were sent to all nodes. Such answers prove neither
// that the gateway can reach the container's own MAC, nor that it has heard the question: a router
// announces itself at any time (RFC 4861 §7.2.6; some with ARP replies to all).
func (f Facts) Indirect() bool {
	return f.Gateway.IsValid() && f.Seen != nil && f.Seen.fresh(f.Asked) && f.Seen.Direct < f.Asked
}

// heardOnly is the line for a gateway with frames to all nodes that arrive, and no answer to the
// container's MAC.
func heardOnly(f Facts) (Code, string) {
	switch {
	case !f.Indirect():
		return "", ""
	case !f.Control.MAC.IsZero():
		return macFiltered(f)
	case f.Local(f.Seen.MAC):
		return "", ""
	}
	return GatewaySilent, fmt.Sprintf("gateway %s (%s) announces itself on %s, but answers no question: check that "+
		"frames of this host reach it, and that its unicast frames come back", f.Gateway, f.Seen.MAC, f.where())
}

// Undelivered reports whether the trunk has seen an answer that the container did not receive.
func (f Facts) Undelivered() bool {
	return f.Gateway.IsValid() && f.Seen != nil && f.Seen.fresh(f.Asked) && f.Answer.MAC.IsZero()
}

// notDelivered is the line for an answer that this host has dropped behind the trunk's program.
func notDelivered(f Facts) (Code, string) {
	if !f.Undelivered() {
		return "", ""
	}
	on := strconv.Quote(f.Trunk)
	if f.Parent != f.Trunk {
		on = fmt.Sprintf("%q or %q", f.Parent, f.Trunk)
	}
	return NotDelivered, fmt.Sprintf("gateway %s (%s) answered on %s, but its answer did not reach the container: look "+
		"for a tc filter or nftables netdev rule on %s that drops it", f.Gateway, f.Seen.MAC, f.where(), on)
}

// macFiltered is the line for a path to the gateway that works for the parent's MAC, but not for
// the container's.
func macFiltered(f Facts) (Code, string) {
	if f.Control.MAC.IsZero() {
		return "", ""
	}
	if f.Seen != nil && len(f.Ahead.In) > 0 && f.ingressMissed() {
		return GatewaySilent, fmt.Sprintf("gateway %s (%s) answers %q, but its frames do not pass the ingress of trunk %q: "+
			"look at %s, which runs before Lanyard's program there",
			f.Gateway, f.Control.MAC, f.Parent, f.Trunk, strings.Join(f.Ahead.In, ", "))
	}
	return MACFiltered, fmt.Sprintf("gateway %s (%s) answers the MAC of parent %q, but not %s on %s: allow several MACs "+
		"on the switch port (port security), or on the hypervisor's port (promiscuous mode, forged transmits, MAC spoofing)",
		f.Gateway, f.Control.MAC, f.Parent, f.MAC, f.where())
}

// hostsText returns the sentence for a silent gateway that is this host: the kernel passes no frame
// between a parent and the macvlans and ipvlans on it.
func (f Facts) hostsText() string {
	return fmt.Sprintf("gateway %s is this host's own address on %q, which no macvlan or ipvlan on %q can reach: "+
		"use --host-access, or another gateway", f.Gateway, f.GatewayLink, f.Parent)
}

func noReply(f Facts) (Code, string) {
	if f.GatewayLink != "" {
		return GatewaySilent, f.hostsText()
	}
	alive, others := f.heard()
	if alive != nil {
		return GatewaySilent, f.silentText(alive.At)
	}
	none := "no frame of " + f.Tags.String()
	if len(f.Tags) == 0 {
		none = "no untagged frame"
	}
	return VLANSilent, fmt.Sprintf("gateway %s did not answer within %s and %s arrived on trunk %q (%s): check that "+
		"the switch port carries %s%s", f.Gateway, f.waited(), none, f.Trunk, others, f.carried(), f.portText())
}

// carried returns what the switch port has to carry: "VLAN 50", or "untagged frames".
func (f Facts) carried() string {
	if len(f.Tags) == 0 {
		return "untagged frames"
	}
	return f.Tags.String()
}

// portText returns what is known of the switch's port as the end of a sentence, "" if nothing is.
func (f Facts) portText() string {
	if f.Port == nil {
		return ""
	}
	port := f.Port()
	if port == "" {
		return ""
	}
	return ": " + port
}

// heard returns the VLAN of the frames, if it is alive on the switch port, and else the names of the
// VLANs that are.
func (f Facts) heard() (own *VLANSeen, others string) {
	var names []string
	for _, v := range f.VLANs {
		// A link that was created on the parent after the trunk's last list of such links is local,
		// too: its frames do not come from the wire.
		if v.Frames == 0 || f.Now.Sub(v.At) > aliveFor || f.Local(v.MAC) {
			continue
		}
		if v.VID == f.vid() {
			return &v, ""
		}
		names = append(names, vlanName(v.VID))
	}
	if len(names) == 0 {
		return nil, "nothing else was heard"
	}
	return nil, "heard: " + strings.Join(names, ", ")
}

// routersText returns which router advertises itself while the gateway is silent, "" if routers
// were not asked. That router may be the gateway, under an address other than the network's
// definition says.
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

// silentText returns the sentence for a silent gateway on a VLAN that is alive. For two tags, the
// trunk's histogram knows only the outer one. If the VLAN was last heard before the question, the
// port may have lost it since.
func (f Facts) silentText(heard Instant) string {
	alive, also := f.Tags.String(), ""
	if n := len(f.Tags); n > 1 {
		alive, also = f.Tags[:1].String(), fmt.Sprintf(", and that %s is carried inside", f.Tags[n-1:])
	}
	also += f.lastHeard(alive, heard)
	if len(f.Routers) > 0 {
		also = " and its address" + also
	}
	return fmt.Sprintf("gateway %s did not answer within %s on %s, though %s is alive%s: check the gateway%s",
		f.Gateway, f.waited(), f.where(), alive, f.routersText(), also)
}

// lastHeard returns what to check about the switch port if the VLAN was last heard before the question:
// the port may have lost it since. It returns "" if it was heard after the question.
func (f Facts) lastHeard(vlan string, at Instant) string {
	if at >= f.Asked {
		return ""
	}
	return fmt.Sprintf(", and that the switch port still carries %s, last heard %s ago%s", vlan, round(f.Now.Sub(at)),
		f.portText())
}

func (f Facts) localText() string {
	return fmt.Sprintf("gateway %s answered from %s, which is on this host: this proves nothing about the switch",
		f.Gateway, f.Answer.MAC)
}

// where returns the container's network as an operator looks for it: the parent, or the VLAN of the
// trunk.
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

// round keeps two or three digits, enough to compare by eye. JSON has the exact values.
func round(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}
