package verify

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// AutoState is the state of an address that a container's kernel has configured (RFC 4862 §5.5.4).
type AutoState string

const (
	AutoUsable     AutoState = "usable"
	AutoDeprecated AutoState = "deprecated" // for connections that exist, not for new ones
	AutoTentative  AutoState = "tentative"  // the kernel still asks whether another station has it
)

// AutoAddr is an address that a container's kernel has configured from router advertisements.
type AutoAddr struct {
	Addr  netip.Prefix `json:"address"`
	State AutoState    `json:"state"`
	// Valid and Preferred are the times until the address is removed, and until it is deprecated.
	// Without a further advertisement they pass. 0: they have no end.
	Valid     time.Duration `json:"valid_ns,omitzero"`
	Preferred time.Duration `json:"preferred_ns,omitzero"`
}

// Autoconf is what is known besides Facts after an interface had time to configure addresses from
// router advertisements.
type Autoconf struct {
	Addrs   []AutoAddr
	Managed bool // Addrs are from a DHCPv6 server
	// Router is the next hop of the default route that the kernel has from a router. If the interface does
	// not take that route, it is a router that was heard. Zero: none.
	Router netip.Addr
	MAC    ether.MAC // the router's, as it answered; zero: it did not
	RTT    time.Duration
	Heard  string // what routers have advertised, in words; "": no router advertised itself
	Waited time.Duration
	// Seen is what the trunk saw of the container's frames in this time. It is nil if the trunk was not
	// watched.
	Seen *Counters
}

// Usable reports whether one of the addresses can be used. A deprecated one can.
func Usable(addrs []AutoAddr) bool {
	return slices.ContainsFunc(addrs, func(a AutoAddr) bool { return a.State == AutoUsable || a.State == AutoDeprecated })
}

// JudgeAutoconf returns the verdict on the addresses and the default route that routers advertise: the
// first line of the table that the facts match.
func JudgeAutoconf(f Facts, a Autoconf) Verdict {
	v := Verdict{Gateway: a.Router, MAC: a.MAC, RTT: a.RTT}
	v.Code, v.Text = judgeAutoconf(f, a)
	return v
}

func judgeAutoconf(f Facts, a Autoconf) (Code, string) {
	switch {
	case f.Down != "":
		return ParentDown, f.Down
	case a.Seen != nil && a.Seen.OutWrong > 0:
		return WrongVLAN, fmt.Sprintf("frames of IPv6 autoconfiguration leave trunk %q with other tags than %s: look for a "+
			"tc filter on %q or %q that changes tags", f.Trunk, f.Tags, f.Parent, f.Trunk)
	case Usable(a.Addrs):
		return judgeRouter(f, a)
	case len(f.Claimants) > 0:
		return AddressConflict, fmt.Sprintf("address %s, which a router's prefix gives to MAC %s, is held by %s on %s: "+
			"choose another MAC with io.lanyard.mac", f.Claimants[0].Addr, f.MAC, f.Claimants[0].MAC.Describe(), f.where())
	case a.Heard == "":
		return judgeNoRouter(f, a)
	case len(a.Addrs) > 0:
		return NoRouter, fmt.Sprintf("address %s is not usable after %s, because the kernel still asks whether another "+
			"station has it: use a longer --deadline", a.Addrs[0].Addr.Addr(), round(a.Waited))
	}
	return NoRouter, fmt.Sprintf("no router on %s gave an address within %s: %s: check the router",
		f.where(), round(a.Waited), a.Heard)
}

// judgeRouter is for an interface with a usable address.
func judgeRouter(f Facts, a Autoconf) (Code, string) {
	has := fmt.Sprintf("IPv6 autoconfiguration on %s gave %s", f.where(), AutoText(a.Addrs))
	if a.Managed {
		has = fmt.Sprintf("a DHCPv6 server on %s gave %s", f.where(), AutoText(a.Addrs))
	}
	switch {
	case !a.Router.IsValid() && a.Heard == "":
		return NoRouter, fmt.Sprintf("%s, but no router advertised itself within %s: check the router", has, round(a.Waited))
	case !a.Router.IsValid():
		return NoRouter, fmt.Sprintf("%s, but no router gave a default route within %s, so that IPv6 leads nowhere else: "+
			"%s: check the router", has, round(a.Waited), a.Heard)
	case a.MAC.IsZero() && a.Seen != nil && a.Seen.OutFrames == 0:
		return NotSent, fmt.Sprintf("%s, but no question from %q for router %s reached trunk %q: look for a tc filter on "+
			"either that drops it", has, f.Parent, a.Router, f.Trunk)
	case a.MAC.IsZero():
		return GatewaySilent, fmt.Sprintf("%s, but router %s, which has advertised itself, does not answer: check the router",
			has, a.Router)
	}
	has += fmt.Sprintf("; router %s (%s) answered", a.Router, a.MAC)
	switch {
	case a.Seen == nil:
		return Unobserved, has + "; tags were not watched: " + f.Unwatched
	case f.Local(a.MAC):
		return OKLocal, has + ", which is on this host: this proves nothing about the switch"
	case a.Seen.OutFrames == 0 || a.Seen.InFrames == 0:
		return Unobserved, fmt.Sprintf("%s, but trunk %q did not see question and answer: look for a program that hides "+
			"frames there", has, f.Trunk)
	}
	return OK, has
}

// judgeNoRouter is for an interface that has heard no router.
func judgeNoRouter(f Facts, a Autoconf) (Code, string) {
	silence := fmt.Sprintf("no router advertised itself (RA) within %s on %s", round(a.Waited), f.where())
	switch {
	case a.Seen == nil:
		return NoRouter, silence + ": check the router; tags were not watched: " + f.Unwatched
	case a.Seen.OutFrames == 0:
		return NotSent, fmt.Sprintf("no router solicitation from %q reached trunk %q: look for a tc filter on either that "+
			"drops it", f.Parent, f.Trunk)
	}
	alive, others := f.heard()
	if alive == nil {
		return NoRouter, fmt.Sprintf("%s, and no frame of another station arrived there (%s): check the router, and that "+
			"the switch port carries %s%s", silence, others, f.carried(), f.portText())
	}
	return NoRouter, silence + ", though it is alive: check the router" + f.lastHeard(f.carried(), alive.At)
}

// maxAutoText is the number of addresses that AutoText names: the kernel configures 16, and the root
// of a container adds any number.
const maxAutoText = 4

// AutoText returns the addresses in one line, those first that are usable, with the state of the others.
func AutoText(addrs []AutoAddr) string {
	var words []string
	for _, usable := range []bool{true, false} {
		for _, a := range addrs {
			switch {
			case usable != (a.State == AutoUsable):
			case usable:
				words = append(words, a.Addr.String())
			default:
				words = append(words, fmt.Sprintf("%s (%s)", a.Addr, a.State))
			}
		}
	}
	if more := len(words) - maxAutoText; more > 0 {
		words = append(words[:maxAutoText], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}
