package hook

import (
	"context"
	"fmt"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// lease tells the guard of the parent's egress, where there is one, what the
// attachment may send. The first to come there puts the guard on.
func (t *attempt) permit(ctx context.Context) error {
	if !t.rec.AtParent {
		return nil
	}
	if t.Guards == nil {
		return errNoGuards
	}
	held, err := t.Guards.Held(t.parent.Index)
	if err == nil && !held {
		err = t.guardParent(ctx)
	}
	if err == nil {
		err = t.Guards.Lease(t.parent.Index, permitOf(&t.rec, t.parent.MTU))
	}
	if err != nil {
		return fmt.Errorf("guard the egress of parent %q: %w (the network's --guard off does without)", t.parent.Name, err)
	}
	return nil
}

func permitOf(a *Attachment, mtu int) verify.Guard {
	g := verify.Guard{MAC: a.MAC, MTU: a.MTU, Gateways: a.Gateways, Attachment: a.ID}
	if g.MTU == 0 {
		g.MTU = mtu
	}
	for _, p := range a.Addrs {
		g.Addrs = append(g.Addrs, p.Addr())
	}
	return g
}

// hold puts the guard on the parent. What stands there already goes on; what
// nobody knows would be cut off, and is named instead.
func (t *attempt) guardParent(ctx context.Context) error {
	recs, err := t.Attachments(ctx)
	if err != nil {
		return err
	}
	defs, _ := network.LoadAll(t.Networks)
	host, err := t.hostMACs(defs)
	if err != nil {
		return err
	}
	strangers, err := t.unleasedOn(t.parent.Index, recs, host)
	if err != nil {
		return err
	}
	if len(strangers) > 0 {
		return fmt.Errorf("%s is sent by somebody whom it would cut off: give that a parent of its own", strangers[0])
	}
	for i := range recs {
		a := &recs[i]
		if a.ParentIdx != t.parent.Index || a.MAC.IsZero() || a.ID == t.rec.ID {
			continue
		}
		if err := t.Guards.Lease(t.parent.Index, permitOf(a, t.parent.MTU)); err != nil {
			return err
		}
	}
	return t.Guards.Hold(t.parent.Index, append(host, verify.MACOf(t.parent.MAC)))
}
