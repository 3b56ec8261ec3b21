//go:build vm

package matrix

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// A cell is one fault in one place, as one container meets it.
type cell struct {
	place  *place
	family *family
	mode   network.Mode
	legacy bool // clsact, where the kernel also has TCX
	fault  *fault
}

func (c cell) String() string {
	by := "first choice of attaching"
	if c.legacy {
		by = "clsact"
	}
	return fmt.Sprintf("%s, %s, %s, %s, %s", c.fault.name, c.place.name, c.family.name, c.mode, by)
}

func (c cell) driver() string {
	if c.mode == network.ModeL2 {
		return network.DriverIPvlan
	}
	return network.DriverMacvlan
}

// want is what the cell must come to. With ipvlan the trunk is not watched: what
// cannot be seen of the tags then leaves an answer, or none.
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

// deadline is short where silence is what the cell waits for, and still many
// round trips of an emulated machine.
func (c cell) deadline() time.Duration {
	if c.fault.deadline != 0 {
		return c.fault.deadline
	}
	return 400 * time.Millisecond
}

// seen is what a cell's evidence must hold.
type seen struct {
	asked   *verify.Tags // how probes left; nil: none did
	reply   *verify.Tags // how the last answer came; nil: none did
	mac     verify.MAC   // who answered
	other   verify.MAC   // and who else
	rival   verify.MAC   // who claimed the container's address
	heard   []uint16     // outer VLANs that must be among those heard
	unheard []uint16     // and those that must not
	dropped bool         // the trunk stopped frames
	late    bool         // the rival may be slower than the window, and then is none
	cut     bool         // the round ended early: the gateway counts for nothing
	local   bool         // the rival is a link of this host
	routers []verify.MAC // that advertised themselves when asked to; nil: never mind
}

// want is what a cell must come to.
type want struct {
	code  verify.Code
	words []string // in the sentence
	seen  *seen    // nil: the trunk is not watched
}

// wrong says what of an outcome is not as it must be, "" if nothing.
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
		say("there is evidence, want none")
	case w.seen != nil && o.evidence == nil:
		say("there is no evidence")
	case w.seen != nil:
		w.seen.wrong(o, say)
	}
	return strings.Join(list, "; ")
}

func (s *seen) wrong(o outcome, say func(string, ...any)) {
	g := o.evidence.Gateways[0]
	sighting := func(what string, got verify.Sighting, want *verify.Tags) {
		switch {
		case want == nil && got.Count > 0:
			say("%s was seen %d times on %s, want never", what, got.Count, got.Tags)
		case want != nil && got.Count == 0:
			say("%s was never seen, want it on %s", what, *want)
		case want != nil && !got.Tags.Equal(*want):
			say("%s was seen on %s, want %s", what, got.Tags, *want)
		}
	}
	if !s.cut {
		sighting("the question", g.Asked, s.asked)
		sighting("the answer", g.Reply, s.reply)
	}
	both := []verify.MAC{g.MAC, g.Other}
	if s.other.IsZero() {
		both = both[:1]
	}
	for _, m := range []verify.MAC{s.mac, s.other} {
		if !m.IsZero() && !slices.Contains(both, m) {
			say("answers came from %s, want %s", both, m)
		}
	}
	if got := o.evidence.Claimants; s.local {
		if len(got) != 1 || got[0].Link == "" {
			say("rivals are %+v, want a link of this host", got)
		}
	} else if len(got) == 0 && !s.late && !s.rival.IsZero() || len(got) > 0 && got[0].MAC != s.rival {
		say("rivals are %+v, want %q", got, s.rival)
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
	var routers []verify.MAC
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
