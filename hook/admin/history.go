package admin

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// TrunkEvent is an event on a trunk, with the attachment and network that it concerns.
type TrunkEvent struct {
	verify.Event
	At         time.Time        // of the last frame
	Since      time.Time        // of the first frame
	Trunk      string           // the trunk's name
	Network    string           // "" if unknown
	Attachment *hook.Attachment // nil if it concerns none, or one that has been released
	Text       string           // instead of the event's; "" if that has one
}

// String returns the event in one line, without its count and times.
func (h TrunkEvent) String() string { return cmp.Or(h.Text, h.Event.String()) }

// Attribute returns the events of the trunk with an ifindex, each with its attachment and network.
// It leaves out expected events: routers of one group that take turns, and frames of the host
// itself.
func (l *Admin) Attribute(ctx context.Context, trunk int, events []verify.Event) (list []TrunkEvent, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	state, err := l.readTrunk(trunk)
	if err != nil {
		return nil, err
	}
	now, clock := time.Now(), verify.Now()
	for _, e := range events {
		h := TrunkEvent{Event: e, At: now.Add(-clock.Sub(e.Last)), Since: now.Add(-clock.Sub(e.First)), Trunk: state.name}
		if e.Expected() || e.Kind == verify.Returned && state.reflects(e.Tags) {
			continue
		}
		if e.Kind == verify.UnleasedMAC {
			if state.isKnown(e, recs) {
				continue
			}
		} else if i := slices.IndexFunc(recs, func(a hook.Attachment) bool { return h.concerns(&a, trunk) }); i >= 0 {
			h.Attachment, h.Network = &recs[i], recs[i].Network
		}
		if h.Network == "" {
			h.Network = state.network(e.Tags)
		}
		list = append(list, h)
	}
	return list, nil
}

// concerns reports whether the event concerns an attachment on the trunk with an ifindex. An event
// from before the attachment was created concerns an earlier holder of the MAC.
func (h *TrunkEvent) concerns(a *hook.Attachment, trunk int) bool {
	if a.Endpoint.Trunk != trunk || a.Created.After(h.At) {
		return false
	}
	tagged := a.Endpoint.Tags.Equal(h.Tags)
	switch {
	case h.Kind == verify.WrongTagIn, h.Kind == verify.WrongTagOut:
		return a.MAC == h.EndpointMAC
	case h.EndpointMAC.IsZero():
		return tagged && slices.Contains(a.Gateways, h.Addr)
	}
	return tagged && a.MAC == h.EndpointMAC
}

// trunkState is what is expected on a trunk: its networks, and the MACs of the host.
type trunkState struct {
	name     string
	host     []ether.MAC
	networks []networkTags
}

// networkTags is the tags of a network's frames on the trunk.
type networkTags struct {
	network string
	tags    ether.Tags
	vepa    bool
}

// readTrunk reads the state of the trunk with an ifindex.
func (l *Admin) readTrunk(trunk int) (s trunkState, err error) {
	defs, _ := network.LoadAll(l.Networks) // other commands report invalid files
	for _, def := range defs {
		if p, err := l.Parent(def); err == nil && p.TrunkIndex == trunk {
			s.networks = append(s.networks, networkTags{def.Name, p.Tags, def.Mode == network.ModeVEPA})
		}
	}
	links, err := l.Host.Interfaces()
	for _, i := range links {
		s.host = append(s.host, ether.MACOf(i.HardwareAddr))
		if i.Index == trunk {
			s.name = i.Name
		}
	}
	return s, err
}

// network returns the first network with the tags, or "".
func (s trunkState) network(tags ether.Tags) string {
	i := slices.IndexFunc(s.networks, func(n networkTags) bool { return n.tags.Equal(tags) })
	if i < 0 {
		return ""
	}
	return s.networks[i].network
}

// reflects reports whether a network with the tags has mode vepa: its switch port sends frames
// back.
func (s trunkState) reflects(tags ether.Tags) bool {
	return slices.ContainsFunc(s.networks, func(n networkTags) bool { return n.vepa && n.tags.Equal(tags) })
}

// isKnown reports whether an unleased MAC is legitimate: one of the host's, one leased since, or
// one on a VLAN that no network uses. The last one is not if the tag is in the packet's data, where
// a workload has written it (e.InPacket).
func (s trunkState) isKnown(e verify.Event, recs []hook.Attachment) bool {
	return slices.Contains(s.host, e.MAC) ||
		slices.ContainsFunc(recs, func(a hook.Attachment) bool { return a.MAC == e.MAC }) ||
		!e.InPacket && s.network(e.Tags) == ""
}

// History returns the events of all trunks that the trunks' maps still have, the oldest of each
// trunk first. It returns the events of other trunks also if one trunk fails.
func (l *Admin) History(ctx context.Context) (all []TrunkEvent, err error) {
	trunks, err := l.Datapath.Trunks()
	for _, trunk := range trunks {
		events, eerr := l.Datapath.Events(trunk)
		some, herr := l.Attribute(ctx, trunk, events)
		all, err = append(all, some...), errors.Join(err, eerr, herr)
	}
	return all, err
}

// HostClaims returns an event for each address of an attachment that this host has on one of its
// own links. No frame on a trunk shows these conflicts. The time of the events is now.
func (l *Admin) HostClaims(ctx context.Context) (list []TrunkEvent, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for i := range recs {
		a := &recs[i]
		claims, err := l.HostClaimants(*a)
		if err != nil {
			return nil, err
		}
		for _, c := range claims {
			e := verify.Event{
				Kind: verify.Conflict, Frames: 1, Tags: a.Endpoint.Tags, Addr: c.Addr, MAC: c.MAC, EndpointMAC: a.MAC, Link: c.Link,
			}
			list = append(list, TrunkEvent{Event: e, At: now, Since: now, Trunk: a.Trunk, Network: a.Network, Attachment: a})
		}
	}
	return list, nil
}

// ParentFaults returns an event for each attachment with a parent that is gone or down. No trunk
// program sees this. The time of the events is now.
func (l *Admin) ParentFaults(ctx context.Context) (list []TrunkEvent, err error) {
	recs, err := l.Attachments(ctx)
	now, faults := time.Now(), map[parentKey]*verify.Change{}
	for i := range recs {
		a := &recs[i]
		if a.State != hook.Attached {
			continue
		}
		key := parentKey{a.Network, a.Interface, a.ParentIdx}
		fault, known := faults[key]
		if !known {
			fault = l.ParentFault(a)
			faults[key] = fault
		}
		if fault == nil {
			continue
		}
		e := verify.Event{Kind: verify.Kind(fault.Code), Frames: 1, Tags: a.Endpoint.Tags, EndpointMAC: a.MAC, Link: a.Parent}
		list = append(list, TrunkEvent{
			Event: e, At: now, Since: now, Trunk: a.Trunk, Network: a.Network, Attachment: a, Text: fault.Text,
		})
	}
	return list, err
}

// parentKey is what the text of a parent's fault depends on.
type parentKey struct {
	network, ifname string
	index           int
}

// recentTime is how long a check reports an event that does not repeat: a check that fails
// permanently is of no use.
const recentTime = time.Hour

// RecentEvents returns the events of all trunks within the last hour, and the host's own claims.
func (l *Admin) RecentEvents(ctx context.Context) ([]TrunkEvent, error) {
	history, err := l.History(ctx)
	host, herr := l.HostClaims(ctx)
	history = slices.DeleteFunc(history, func(h TrunkEvent) bool { return time.Since(h.At) > recentTime })
	return append(history, host...), errors.Join(err, herr)
}
