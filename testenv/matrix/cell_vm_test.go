//go:build vm

package matrix

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// A cell is one fault in one segment, for one container.
type cell struct {
	segment *segment
	family  *family
	mode    network.Mode
	legacy  bool // clsact, although the kernel supports TCX
	fault   *fault
}

func (c cell) String() string {
	by := "preferred attach type"
	if c.legacy {
		by = "clsact"
	}
	return fmt.Sprintf("%s, %s, %s, %s, %s", c.fault.name, c.segment.name, c.family.name, c.mode, by)
}

func (c cell) driver() string {
	if c.mode == network.ModeL2 {
		return network.DriverIPvlan
	}
	return network.DriverMacvlan
}

// want returns the expected result of the cell. With ipvlan the trunk is not watched: faults of the
// tags are then only visible as an answer or no answer.
func (c cell) want(b *bench) want {
	w := c.fault.want(b, c)
	if c.mode != network.ModeL2 {
		return w
	}
	w.seen = nil
	switch w.code {
	case verify.ParentDown, verify.AddressConflict, verify.DuplicateMAC, verify.GatewayConflict:
	case verify.OK:
		w.code, w.words = verify.Unobserved, []string{"tags were not watched: driver ipvlan"}
	default:
		w.code, w.words = verify.GatewaySilent, []string{"tags were not watched: driver ipvlan"}
	}
	return w
}

// deadline is short for cells that wait for the end of a silence, but many round trips of an
// emulated machine.
func (c cell) deadline() time.Duration {
	switch {
	case c.fault.deadline != 0:
		return c.fault.deadline
	case c.fault.from == fromDatabase:
		return 400 * time.Millisecond
	case isIPv6(c):
		return addressWait6
	}
	return addressWait4
}

// seen is what a cell's evidence must contain.
type seen struct {
	asked    *ether.Tags // tags of the probes; nil: none was sent
	reply    *ether.Tags // tags of the last answer; nil: there was none
	mac      ether.MAC   // the MAC that answered
	other    ether.MAC   // another MAC that answered
	claimant ether.MAC   // the station that claimed the container's address
	heard    []uint16    // outer VLANs that must have been heard
	unheard  []uint16    // outer VLANs that must not
	dropped  bool        // the trunk dropped frames
	optional bool        // the claimant may be slower than the window, and is then not found
	roundCut bool        // the round ended early: the gateway's answer does not matter
	hostLink bool        // the claimant is a link of this host
	counted  *counted    // the frames of the container, instead of a question and its answer
	routers  []ether.MAC // routers that advertised themselves when asked; nil: not checked
}

// want is the expected result of a cell.
type want struct {
	code  verify.Code
	words []string // must be in the sentence
	seen  *seen    // nil: the trunk is not watched
}

// wrong returns the differences between an outcome and the expected result, "" if there are none.
func (w want) wrong(o outcome) string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if o.verdict.Code != w.code {
		say("verdict %s (%s), want %s", o.verdict.Code, o.verdict.Text, w.code)
	}
	for _, word := range w.words {
		if !strings.Contains(o.verdict.Text, word) {
			say("%q does not say %q", o.verdict.Text, word)
		}
	}
	switch {
	case w.seen == nil && o.evidence != nil:
		say("got evidence, want none")
	case w.seen != nil && o.evidence == nil:
		say("got no evidence")
	case w.seen != nil:
		w.seen.wrong(o, say)
	}
	return strings.Join(list, "; ")
}

func (s *seen) wrong(o outcome, say func(string, ...any)) {
	g := verify.GatewaySeen{}
	if s.counted != nil {
		s.counted.wrong(o.evidence.Counters, say)
	} else {
		g = o.evidence.Gateways[0]
	}
	sighting := func(frame string, got verify.Sighting, want *ether.Tags) {
		switch {
		case want == nil && got.Count > 0:
			say("%s was seen %d times on %s, want never", frame, got.Count, got.Tags)
		case want != nil && got.Count == 0:
			say("%s was never seen, want it on %s", frame, *want)
		case want != nil && !got.Tags.Equal(*want):
			say("%s was seen on %s, want %s", frame, got.Tags, *want)
		}
	}
	if !s.roundCut {
		sighting("the question", g.Asked, s.asked)
		sighting("the answer", g.Reply, s.reply)
	}
	both := []ether.MAC{g.MAC, g.Other}
	if s.other.IsZero() {
		both = both[:1]
	}
	for _, m := range []ether.MAC{s.mac, s.other} {
		if !m.IsZero() && !slices.Contains(both, m) {
			say("answers came from %s, want %s", both, m)
		}
	}
	if got := o.evidence.Claimants; s.hostLink {
		if len(got) != 1 || got[0].Link == "" {
			say("claimants are %+v, want a link of this host", got)
		}
	} else if len(got) == 0 && !s.optional && !s.claimant.IsZero() || len(got) > 0 && got[0].MAC != s.claimant {
		say("claimants are %+v, want %q", got, s.claimant)
	}
	heard := func(vid uint16) bool {
		return slices.ContainsFunc(o.evidence.VLANs, func(v verify.VLANSeen) bool { return v.VID == vid })
	}
	for _, vid := range s.heard {
		if !heard(vid) {
			say("VLAN %d was not heard", vid)
		}
	}
	for _, vid := range s.unheard {
		if heard(vid) {
			say("VLAN %d was heard", vid)
		}
	}
	var routers []ether.MAC
	for _, r := range o.evidence.Routers {
		routers = append(routers, r.MAC)
	}
	if s.routers != nil && (o.evidence.Routers == nil || !slices.Equal(routers, s.routers)) {
		say("routers that advertise themselves are %+v, want %s", o.evidence.Routers, s.routers)
	}
	if n := o.evidence.Counters.Dropped; s.dropped != (n > 0) {
		say("%d frames were dropped at the trunk", n)
	}
}
