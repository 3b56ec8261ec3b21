package verify

import (
	"fmt"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// UnleasedMAC is the kind of an event that belongs to no endpoint: frames left a trunk from a MAC
// without an endpoint or lease.
const UnleasedMAC Kind = "unleased-mac"

// Event is a fault that the datapath has recorded, whether or not a process was reading at that
// time. Repetitions are counted in the first event.
type Event struct {
	Kind        Kind       `json:"kind"`
	Frames      uint64     `json:"count"`
	First       Instant    `json:"-"`
	Last        Instant    `json:"-"`
	Tags        ether.Tags `json:"tags,omitempty"` // tags of the frames
	InPacket    bool       `json:"-"`              // the outermost tag was in the packet's bytes: written by hand
	Addr        netip.Addr `json:"addr"`           // the claimed address, or the gateway's; zero for tags
	MAC         ether.MAC  `json:"mac"`            // the MAC that caused the event
	EndpointMAC ether.MAC  `json:"endpoint_mac"`   // the endpoint; zero if the kind has none, or all nodes were answered
	PreviousMAC ether.MAC  `json:"previous_mac"`   // the MAC that answered for the gateway before
	Stopped     bool       `json:"stopped,omitzero"`
	Link        string     `json:"link,omitempty"` // the link of this host that has Addr; empty for another station
}

// Key returns a string that two events have in common only if they differ in nothing but their
// counts and times.
func (e Event) Key() string {
	return fmt.Sprint(e.Kind, e.Tags, e.InPacket, e.Addr, e.MAC, e.EndpointMAC, e.PreviousMAC, e.Stopped, e.Link)
}

// String returns the event in one line, without its count and times.
func (e Event) String() string {
	switch e.Kind {
	case Conflict:
		if e.Link != "" {
			return fmt.Sprintf("address %s belongs to this host, on link %q", e.Addr, e.Link)
		}
		return fmt.Sprintf("address %s is claimed by %s", e.Addr, e.MAC.Describe())
	case WrongTagOut:
		fate := "left"
		if e.Stopped {
			fate = "were dropped"
		}
		return fmt.Sprintf("frames from %s %s with a wrong tag, %s", e.MAC, fate, e.Tags)
	case WrongTagIn:
		return fmt.Sprintf("frames from %s arrived with a wrong tag, %s", e.MAC.Describe(), e.Tags)
	case GatewayMoved:
		return fmt.Sprintf("gateway %s moved from %s to %s", e.Addr, e.PreviousMAC, e.MAC.Describe())
	case SameMAC:
		return fmt.Sprintf("another station also has MAC %s, %s", e.MAC, e.Tags)
	case Returned:
		return fmt.Sprintf("frames from %s were returned, %s: by a loop, or a switch port that sends frames back (hairpin)",
			e.MAC, e.Tags)
	case UnleasedMAC:
		return fmt.Sprintf("%s sends frames, %s, without a lease", e.MAC.Describe(), e.Tags)
	}
	return string(e.Kind)
}

// Expected reports whether an event is normal operation: members of a router group take turns.
func (e Event) Expected() bool {
	return e.Kind == GatewayMoved && e.MAC.Virtual() && e.PreviousMAC.Virtual()
}
