package verify

import (
	"fmt"
	"strings"
	"time"
)

// NoLease is what is known besides Facts after DHCP servers were asked, and gave no usable lease.
type NoLease struct {
	Protocol string        // "DHCP" or "DHCPv6"
	Routers  string        // what routers say of servers, in words; "": nothing
	Sent     int           // requests
	Waited   time.Duration // from the first one
	Outside  string        // an offer outside of the network's subnet, in words; "" if there was none
	// Seen is what the trunk saw of the container's frames since the first request. It is nil if the
	// trunk was not watched.
	Seen *Counters
}

// JudgeLease returns the verdict on a start without a lease: the first line of the table that the
// facts match.
func JudgeLease(f Facts, n NoLease) (v Verdict) {
	v.Code, v.Text = judgeLease(f, n)
	return v
}

func judgeLease(f Facts, n NoLease) (Code, string) {
	const tags = "look for a tc filter on %q or %q that %s"
	switch {
	case f.Down != "":
		return ParentDown, f.Down
	case n.Outside != "":
		return DHCPWrongVLAN, fmt.Sprintf("%s: check that %q leads to the network's VLAN, or correct the server", n.Outside,
			f.Parent)
	case n.Seen == nil:
		return DHCPSilent, fmt.Sprintf("%s on %s; tags were not watched: %s", n.silence(), f.where(), f.Unwatched)
	case n.Seen.OutWrong > 0:
		return WrongVLAN, fmt.Sprintf("requests to %s servers leave trunk %q with other tags than %s: "+tags, n.Protocol,
			f.Trunk, f.Tags, f.Parent, f.Trunk, "changes tags")
	case n.Seen.OutFrames == 0:
		return NotSent, fmt.Sprintf("no request to %s servers from %q reached trunk %q: "+tags, n.Protocol, f.Parent, f.Trunk,
			f.Parent, f.Trunk, "drops it")
	case n.Seen.InWrong > 0:
		return DHCPWrongVLAN, fmt.Sprintf("requests to %s servers left as %s and answers arrived on %s: compare the "+
			"native VLAN on both ends of trunk %q", n.Protocol, f.Tags, f.answeredOn(), f.Trunk)
	}
	alive, others := f.heard()
	if alive == nil {
		return DHCPSilent, fmt.Sprintf("%s on %s, and no frame of another station arrived there (%s): check the %s server, "+
			"and that the switch port carries %s%s", n.silence(), f.where(), others, n.Protocol, f.carried(), f.portText())
	}
	return DHCPSilent, fmt.Sprintf("%s on %s, though it is alive: check the %s server, or its relay%s", n.silence(),
		f.where(), n.Protocol, f.lastHeard(f.carried(), alive.At))
}

// silence returns the first words about servers that do not answer.
func (n NoLease) silence() string {
	words := fmt.Sprintf("no %s server answered %d requests within %s", n.Protocol, n.Sent, round(n.Waited))
	if n.Routers != "" {
		words += " (" + n.Routers + ")"
	}
	return words
}

// answeredOn returns the names of the other VLANs with frames since the first request.
func (f Facts) answeredOn() string {
	var names []string
	for _, v := range f.VLANs {
		if v.VID != f.vid() && v.At >= f.Asked && !f.Local(v.MAC) {
			names = append(names, vlanName(v.VID))
		}
	}
	if len(names) == 0 {
		return "another VLAN"
	}
	return strings.Join(names, ", ")
}
