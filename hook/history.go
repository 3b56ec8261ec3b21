package hook

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Happened is an event on a trunk, and whose it is.
type TrunkEvent struct {
	verify.Event
	At         time.Time   // of the last frame
	Since      time.Time   // of the first
	Trunk      string      // its name
	Network    string      // "" where that cannot be told
	Attachment *Attachment // nil where nobody has it, or not any more
}

// Happened says whose events of a trunk are, and leaves out those that are as they
// should be: routers of a group that take turns, and what the host itself sends.
func (l *Local) Attribute(ctx context.Context, trunk int, events []verify.Event) (list []TrunkEvent, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	on, err := l.readTrunk(trunk)
	if err != nil {
		return nil, err
	}
	now, clock := time.Now(), verify.Now()
	for _, e := range events {
		h := TrunkEvent{Event: e, At: now.Add(-clock.Sub(e.Last)), Since: now.Add(-clock.Sub(e.First)), Trunk: on.name}
		if e.Expected() || e.Kind == verify.Returned && on.reflects(e.Tags) {
			continue
		}
		if e.Kind == verify.UnleasedMAC {
			if on.isKnown(e, recs) {
				continue
			}
		} else if i := slices.IndexFunc(recs, func(a Attachment) bool { return h.concerns(&a, trunk) }); i >= 0 {
			h.Attachment, h.Network = &recs[i], recs[i].Network
		}
		if h.Network == "" {
			h.Network = on.network(e.Tags)
		}
		list = append(list, h)
	}
	return list, nil
}

// of reports whether an event is of an attachment: its MAC may have been another's
// before.
func (h *TrunkEvent) concerns(a *Attachment, trunk int) bool {
	if a.Endpoint.Trunk != trunk || a.Created.After(h.At) {
		return false
	}
	tagged := a.Endpoint.Tags.Equal(h.Tags)
	switch {
	case h.Kind == verify.WrongTagIn, h.Kind == verify.WrongTagOut:
		return a.MAC == h.Of
	case h.Of.IsZero():
		return tagged && slices.Contains(a.Gateways, h.Addr)
	}
	return tagged && a.MAC == h.Of
}

// onTrunk is what belongs on a trunk.
type trunkState struct {
	name     string
	host     []verify.MAC
	networks []networkTags
}

type networkTags struct {
	network string
	tags    verify.Tags
	vepa    bool
}

func (l *Local) readTrunk(trunk int) (on trunkState, err error) {
	defs, _ := network.LoadAll(l.Networks) // a broken file is for others to complain of
	for _, def := range defs {
		if p, err := l.Parent(def); err == nil && p.TrunkIndex == trunk {
			on.networks = append(on.networks, networkTags{def.Name, tagsOf(p), def.Mode == network.ModeVEPA})
		}
	}
	links, err := l.Host.Interfaces()
	for _, i := range links {
		on.host = append(on.host, verify.MACOf(i.HardwareAddr))
		if i.Index == trunk {
			on.name = i.Name
		}
	}
	return on, err
}

// network gives the first network with those tags.
func (on trunkState) network(tags verify.Tags) string {
	i := slices.IndexFunc(on.networks, func(n networkTags) bool { return n.tags.Equal(tags) })
	if i < 0 {
		return ""
	}
	return on.networks[i].network
}

// reflects reports whether a network with those tags is of mode vepa, whose switch port
// sends frames back.
func (on trunkState) reflects(tags verify.Tags) bool {
	return slices.ContainsFunc(on.networks, func(n networkTags) bool { return n.vepa && n.tags.Equal(tags) })
}

// knows reports whether a MAC that nobody is watched for sends by right: the host's, or
// one that was given out after all. What others have on VLANs that are no network's
// is theirs to know, unless the tag was written by hand.
func (on trunkState) isKnown(e verify.Event, recs []Attachment) bool {
	return slices.Contains(on.host, e.MAC) ||
		slices.ContainsFunc(recs, func(a Attachment) bool { return a.MAC == e.MAC }) ||
		!e.InPacket && on.network(e.Tags) == ""
}

// History gives what happened on all trunks, as far as it is kept, each trunk's
// oldest first.
func (l *Local) History(ctx context.Context) (all []TrunkEvent, err error) {
	trunks, err := l.Datapath.Trunks()
	for _, trunk := range trunks {
		events, eerr := l.Datapath.Events(trunk)
		some, herr := l.Attribute(ctx, trunk, events)
		all, err = append(all, some...), errors.Join(err, eerr, herr)
	}
	return all, err
}

// HostClaims returns the attachments' addresses that this host has on a link of its own,
// as events of now: no frame on a trunk tells of them.
func (l *Local) HostClaims(ctx context.Context) (list []TrunkEvent, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for i := range recs {
		a := &recs[i]
		rivals, err := l.hostClaimants(*a)
		if err != nil {
			return nil, err
		}
		for _, r := range rivals {
			list = append(list, TrunkEvent{
				Event: verify.Event{Kind: verify.Conflict, Frames: 1, Tags: a.Endpoint.Tags, Addr: r.Addr, MAC: r.MAC, Of: a.MAC, Link: r.Link},
				At:    now, Since: now, Trunk: a.Trunk, Network: a.Network, Attachment: a,
			})
		}
	}
	return list, nil
}

// newsFor is how long an event without a repetition is reported by a check: one that
// fails for ever says nothing.
const recentTime = time.Hour

// Lately returns what happened on all trunks within the last hour, and the host's own
// claims.
func (l *Local) RecentEvents(ctx context.Context) ([]TrunkEvent, error) {
	history, err := l.History(ctx)
	host, herr := l.HostClaims(ctx)
	history = slices.DeleteFunc(history, func(h TrunkEvent) bool { return time.Since(h.At) > recentTime })
	return append(history, host...), errors.Join(err, herr)
}
