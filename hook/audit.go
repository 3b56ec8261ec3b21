package hook

import (
	"context"
	"slices"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// strangers are the MACs that a parent takes in and that no record has, nor a link
// of the host's own. Nested macvlans of containers' are among them.
func (l *Local) unleasedOn(parent int, recs []Attachment, host []verify.MAC) (macs []verify.MAC, err error) {
	all, err := l.Host.ParentUnicast(parent)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		mac := verify.MACOf(m)
		known := slices.Contains(host, mac) || slices.ContainsFunc(recs, func(a Attachment) bool { return a.ParentIdx == parent && a.MAC == mac })
		if !known && !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	return macs, nil
}

// Audited is what was found on the parent of a network.
type Audited struct {
	Network string
	Parent  string
	// Strangers are MACs that the parent takes in and that nobody was given: of
	// nested macvlans, or of links that others made.
	Unleased []verify.MAC
	// Sent is what the trunk has seen leave of MACs that nobody was given, in the
	// last hour.
	Sent []TrunkEvent
	// Claims are other stations' claims of an address or a MAC of an attachment's, in the
	// last hour.
	Claims []TrunkEvent
	// Dropped counts what strangers sent and the guard of the parent's egress
	// stopped, by reason.
	Dropped map[string]uint64
	Err     error // why the network could not be looked at
}

// Audit compares what the networks' parents take in with what was given out.
// What came or went meanwhile is looked at again, so that it is no stranger.
func (l *Local) Audit(ctx context.Context) (found []Audited, broken []error) {
	defs, broken := network.LoadAll(l.Networks)
	host, err := l.hostMACs(defs)
	if err != nil {
		return nil, append(broken, err)
	}
	lately, err := l.RecentEvents(ctx)
	if err != nil {
		broken = append(broken, err)
	}
	for _, def := range defs {
		a := Audited{Network: def.Name, Parent: def.Parent}
		a.Unleased, a.Dropped, a.Err = l.audit(ctx, def, host)
		for _, h := range lately {
			switch {
			case h.Network != def.Name:
			case h.Kind == verify.UnleasedMAC:
				a.Sent = append(a.Sent, h)
			case h.Kind == verify.Conflict || h.Kind == verify.SameMAC:
				a.Claims = append(a.Claims, h)
			}
		}
		found = append(found, a)
	}
	return found, broken
}

func (l *Local) audit(ctx context.Context, def *network.Definition, host []verify.MAC) (macs []verify.MAC, dropped map[string]uint64, err error) {
	p, err := l.Parent(def)
	if err != nil {
		return nil, nil, err
	}
	// The list first and the records second: what is attached in between is known.
	before, err := l.unleasedOn(p.Index, nil, host)
	if err != nil {
		return nil, nil, err
	}
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, nil, err
	}
	now, err := l.unleasedOn(p.Index, recs, host)
	if err != nil {
		return nil, nil, err
	}
	for _, mac := range now {
		if slices.Contains(before, mac) {
			macs = append(macs, mac)
		}
	}
	if l.Guards == nil {
		return macs, nil, nil
	}
	if held, err := l.Guards.Held(p.Index); err != nil || !held {
		return macs, nil, err
	}
	g, err := l.Guards.Leased(p.Index, verify.MAC{})
	return macs, g.OutDropped, err
}
