package attach

import (
	"context"
	"fmt"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// UnleasedOn returns the MACs that the parent with an ifindex receives frames for, and that neither
// a record nor one of the host's own links has. Those of macvlans nested in containers are among
// them.
func (l *Local) UnleasedOn(parent int, recs []hook.Attachment, host []ether.MAC) (macs []ether.MAC, err error) {
	all, err := l.Host.ParentUnicast(parent)
	if err != nil {
		return nil, err
	}
	for _, mac := range all {
		leased := slices.ContainsFunc(recs, func(a hook.Attachment) bool { return a.ParentIdx == parent && a.MAC == mac })
		if !leased && !slices.Contains(host, mac) && !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	return macs, nil
}

// permit adds the attachment's permit to the guard of the parent's egress, if the network guards
// its parent. The first attachment of a parent guards it.
func (t *attempt) permit(ctx context.Context) error {
	if !t.rec.AtParent {
		return nil
	}
	held, err := t.Guards.ParentGuarded(t.parent.Index)
	if err == nil && !held {
		err = t.guardParent(ctx)
	}
	if err == nil {
		err = t.acquire(ctx, func() error { return t.Guards.Permit(t.parent.Index, permitOf(&t.rec, t.parent.MTU)) })
	}
	if err != nil {
		return fmt.Errorf("guard the egress of parent %q: %w (a network with --guard off needs no guard)", t.parent.Name, err)
	}
	return nil
}

// permitOf returns an attachment's permit. mtu is the parent's MTU in bytes, for an attachment
// without its own.
func permitOf(a *hook.Attachment, mtu int) verify.Guard {
	g := verify.Guard{MAC: a.MAC, MTU: a.MTU, Gateways: a.Gateways, Autoconf: a.IsAutoconf(), Attachment: a.ID}
	g.Asks = a.AtParent && a.SLAAC != nil && a.SLAAC.Managed
	if g.MTU == 0 {
		g.MTU = mtu
	}
	g.Addrs = a.Addresses()
	return g
}

// guardParent guards the parent, with permits for the attachments that it already has. It returns
// an error if the parent has an unleased MAC, because the guard would drop that MAC's frames.
func (t *attempt) guardParent(ctx context.Context) error {
	recs, err := t.Attachments(ctx)
	if err != nil {
		return err
	}
	defs, _ := network.LoadAll(t.Networks)
	host, err := t.HostMACs(defs)
	if err != nil {
		return err
	}
	unleased, err := t.UnleasedOn(t.parent.Index, recs, host)
	if err != nil {
		return err
	}
	if len(unleased) > 0 {
		return fmt.Errorf("it would drop the frames of %s, which has no lease: move that link to another parent", unleased[0])
	}
	for i := range recs {
		a := &recs[i]
		if a.ParentIdx != t.parent.Index || a.MAC.IsZero() || a.ID == t.rec.ID {
			continue
		}
		if err := t.Guards.Permit(t.parent.Index, permitOf(a, t.parent.MTU)); err != nil {
			return err
		}
	}
	return t.Guards.GuardParent(t.parent.Index, host)
}
