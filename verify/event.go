package verify

import (
	"fmt"
	"net/netip"
)

// Stranger is the kind of an event that is of no endpoint: frames left a trunk from a
// MAC that nobody is watched for.
const UnleasedMAC Kind = "unleased-mac"

// Event is something that should not be, as the datapath keeps it for whoever comes
// to look: the same again is counted with the first.
type Event struct {
	Kind        Kind       `json:"kind"`
	Frames      uint64     `json:"count"`
	First       Instant    `json:"-"`
	Last        Instant    `json:"-"`
	Tags        Tags       `json:"tags,omitempty"` // of the frames
	InPacket    bool       `json:"-"`              // the outermost tag was in the packet's bytes: somebody wrote it by hand
	Addr        netip.Addr `json:"addr"`           // claimed, or the gateway's; zero for tags
	MAC         MAC        `json:"mac"`            // who did it
	EndpointMAC MAC        `json:"endpoint_mac"`   // whose frames or address they were; zero for strangers, and for a gateway that answered to all
	PreviousMAC MAC        `json:"previous_mac"`   // who answered for the gateway before
	Stopped     bool       `json:"stopped,omitzero"`
	Link        string     `json:"link,omitempty"` // of this host, where it is the host that has claimed Addr
}

// What is all that tells an event from another one.
func (e Event) Key() string {
	return fmt.Sprint(e.Kind, e.Tags, e.InPacket, e.Addr, e.MAC, e.EndpointMAC, e.PreviousMAC, e.Stopped, e.Link)
}

// String says it in one line, without how often.
func (e Event) String() string {
	switch e.Kind {
	case Conflict:
		if e.Link != "" {
			return fmt.Sprintf("address %s is this host's own, on %q", e.Addr, e.Link)
		}
		return fmt.Sprintf("address %s is claimed by %s", e.Addr, e.MAC.Describe())
	case WrongTagOut:
		fate := "left"
		if e.Stopped {
			fate = "were stopped"
		}
		return fmt.Sprintf("frames from %s %s with a wrong tag, %s", e.MAC, fate, e.Tags)
	case WrongTagIn:
		return fmt.Sprintf("frames from %s came with a wrong tag, %s", e.MAC.Describe(), e.Tags)
	case GatewayMoved:
		return fmt.Sprintf("gateway %s is %s now, and was %s", e.Addr, e.MAC.Describe(), e.PreviousMAC)
	case SameMAC:
		return fmt.Sprintf("another station has MAC %s as well, %s", e.MAC, e.Tags)
	case Returned:
		return fmt.Sprintf("frames from %s came back, %s: a loop, or a switch port that sends frames back (hairpin)", e.MAC, e.Tags)
	case UnleasedMAC:
		return fmt.Sprintf("%s sends frames, %s, without a lease", e.MAC.Describe(), e.Tags)
	}
	return string(e.Kind)
}

// Expected reports whether an event is as it should be after all: members of a group
// of routers take turns.
func (e Event) Expected() bool {
	return e.Kind == GatewayMoved && e.MAC.Virtual() && e.PreviousMAC.Virtual()
}
