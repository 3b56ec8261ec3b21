package admin

import (
	"context"
	"slices"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Audited is the result of an audit of one network.
type Audited struct {
	Network string
	Parent  string
	// Unleased are the unleased MACs that the parent receives frames for: those of nested
	// macvlans, or of links that another program created.
	Unleased []ether.MAC
	// Sent are the frames from unleased MACs that left by the trunk within the last hour.
	Sent []TrunkEvent
	// Claims are the claims of other stations to an address or MAC of an attachment, within
	// the last hour.
	Claims []TrunkEvent
	// Dropped counts the frames from unleased MACs that the guard of the parent's egress
	// dropped, by reason.
	Dropped map[string]uint64
	Err     error // why the network could not be audited
}

// Audit compares the MACs that the networks' parents receive frames for with the records. It
// returns a result for each network, and an error for each definition that could not be read. It
// reads the MACs twice, with the records between, so that an attachment that comes or goes during
// the audit is not reported as unleased.
func (l *Admin) Audit(ctx context.Context) (found []Audited, broken []error) {
	defs, broken := network.LoadAll(l.Networks)
	found, err := l.AuditOf(ctx, defs, defs)
	if err != nil {
		broken = append(broken, err)
	}
	return found, broken
}

// AuditOf audits the networks in some; all are the definitions of this host. On an error, the results are
// incomplete.
func (l *Admin) AuditOf(ctx context.Context, some, all []*network.Definition) (found []Audited, err error) {
	host, err := l.HostMACs(all)
	if err != nil {
		return nil, err
	}
	recent, err := l.RecentEvents(ctx)
	for _, def := range some {
		a := Audited{Network: def.Name, Parent: def.Parent}
		a.Unleased, a.Dropped, a.Err = l.audit(ctx, def, host)
		for _, e := range recent {
			switch {
			case e.Network != def.Name:
			case e.Kind == verify.UnleasedMAC:
				a.Sent = append(a.Sent, e)
			case e.Kind == verify.Conflict || e.Kind == verify.SameMAC:
				a.Claims = append(a.Claims, e)
			}
		}
		found = append(found, a)
	}
	return found, err
}

// audit returns the unleased MACs of a network's parent, and what its guard dropped of them.
func (l *Admin) audit(
	ctx context.Context, def *network.Definition, host []ether.MAC,
) (macs []ether.MAC, dropped map[string]uint64, err error) {
	p, err := l.Parent(def)
	if err != nil {
		return nil, nil, err
	}
	// The MACs first and the records second: an attachment that is created in between is in the
	// records.
	before, err := l.UnleasedOn(p.Index, nil, host)
	if err != nil {
		return nil, nil, err
	}
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, nil, err
	}
	now, err := l.UnleasedOn(p.Index, recs, host)
	if err != nil {
		return nil, nil, err
	}
	for _, mac := range now {
		if slices.Contains(before, mac) {
			macs = append(macs, mac)
		}
	}
	if held, err := l.Guards.ParentGuarded(p.Index); err != nil || !held {
		return macs, nil, err
	}
	g, err := l.Guards.Permitted(p.Index, ether.MAC{})
	return macs, g.OutDropped, err
}
