package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/verify"
)

// ErrNotGone is returned by Reattach if the interface exists.
var ErrNotGone = errors.New("the interface is in its container: there is nothing to create")

// Reattach creates the interface of a running container again, after it went with its parent or was
// deleted. Name, MAC, addresses and routes are those of the record; the verdict is new. The record
// and its leases stay on an error, and nothing else does: Reattach can be repeated. It returns a
// *Refusal if the verdict is fatal, and hook.ErrGone if the container was detached during the call.
func (l *Local) Reattach(ctx context.Context, id verify.ID) (rec hook.Attachment, err error) {
	lock, err := l.Host.Lock(ctx, "reattach")
	if err != nil {
		return rec, err
	}
	defer lock.Close()
	if err := l.DB.View(ctx, func(tx record.Tx) (err error) {
		rec, err = record.Get(tx, id)
		return err
	}); err != nil {
		return rec, err
	}
	ns, err := l.Host.FindNetns(rec.Netns.Inode, rec.Netns.Cookie)
	if err != nil {
		return rec, err
	}
	if ns == nil {
		return rec, errors.New("its namespace is gone: \"lanyard gc\" removes the record")
	}
	defer ns.Close()
	gone := func(c verify.Change) bool { return c.Code == verify.InterfaceGone }
	if !slices.ContainsFunc(l.changesIn(ns, &rec, l.parentNow(&rec)), gone) {
		return rec, ErrNotGone
	}
	t, err := l.attemptAgain(ctx, ns, rec)
	if err != nil {
		return rec, err
	}
	if err := t.moveToParent(ctx); err != nil {
		return rec, err
	}
	if err := t.run(ctx); err != nil {
		return rec, errors.Join(err, t.removeAgain(ctx, &rec))
	}
	return t.rec, nil
}

// attemptAgain returns the attempt to create the interface of a record again. It asks for what the
// record has, so that no other address or MAC is chosen. A lost lease of a DHCP server is left out.
func (l *Local) attemptAgain(
	ctx context.Context, ns *link.Netns, rec hook.Attachment,
) (t *attempt, err error) {
	def, err := network.Load(l.Networks, rec.Network)
	if err != nil {
		return nil, err
	}
	if def.ID != rec.Generation {
		return nil, errors.New("the network was deleted and recreated: start the container again")
	}
	t = &attempt{
		verification: verification{Local: l, def: def, ns: ns, rec: rec},
		want: hook.Want{
			Network: rec.Network, Interface: rec.Interface, MTU: rec.MTURequested, Verify: rec.Mode, Default: rec.DefaultRoute,
			Sysctls: rec.Sysctls,
		},
		r:         hook.Request{Pod: rec.Pod},
		guarded:   rec.Guard != nil,
		lost:      map[hook.Family]*dhcp.Lease{},
		noDefault: map[hook.Family]bool{hook.IPv4: true, hook.IPv6: true},
	}
	if len(rec.Containers) > 0 {
		t.r.Container, t.r.Name = rec.Containers[0].ID, rec.Containers[0].Name
	}
	for _, f := range hook.Families {
		if hasLost(&rec, f) {
			t.lost[f] = rec.ServerLease(f)
			t.rec.SetServerLease(f, nil)
			t.rec.SetServerAddr(f, netip.Prefix{})
		}
	}
	t.rec.MTU, t.want.Addrs, t.rec.Latest = rec.MTURequested, t.addrs(), nil
	if !def.SharesMAC() {
		t.want.MAC = rec.MAC
	}
	for _, via := range rec.Defaults {
		t.noDefault[hook.FamilyOf(via)] = false
	}
	if rec.SLAAC != nil && rec.SLAAC.Default {
		t.noDefault[hook.IPv6] = false
	}
	for _, o := range rec.Others {
		t.noDefault[hook.FamilyOf(o.To.Addr())] = false
	}
	if err := l.DB.View(ctx, func(tx record.Tx) (err error) {
		t.here, err = record.ByNetns(tx, rec.Netns)
		return err
	}); err != nil {
		return nil, err
	}
	names, err := ns.Links()
	t.loopbackOnly = len(names) == 1
	return t, err
}

// moveToParent creates the parent if it is managed and missing, records it and its new ifindex, and
// removes what the attachment had on the earlier one. What is recorded is then not acquired yet.
func (t *attempt) moveToParent(ctx context.Context) (err error) {
	old := t.rec
	if t.parent, _, err = t.EnsureParent(ctx, t.def); err != nil {
		return err
	}
	t.rec.Former = &old.Endpoint
	if err := t.recordEndpoint(ctx); err != nil {
		return err
	}
	err = errors.Join(driver.Of(t.Parts, &old).Remove(old), t.ns.DeleteSourceRules(old.Index, old.Addrs),
		t.revokePermit(old), t.forget(old.Endpoint), t.dropFormer(old))
	if err != nil {
		return fmt.Errorf("remove what is left of the earlier interface: %w", err)
	}
	t.rec.Former = nil
	return nil
}

// removeAgain removes what the attempt has created, and gives the record the parent of old again: a sweep
// then sees that the interface went with it. If a detach has removed the record, only the interface is
// left of the attempt, and removeAgain returns an error that wraps hook.ErrGone.
func (t *attempt) removeAgain(ctx context.Context, old *hook.Attachment) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := errors.Join(t.removeLink(), t.whileAttached(ctx, &t.rec, func(*hook.Attachment) error {
		return errors.Join(t.removeHostRoutes(t.rec), t.revokePermit(t.rec), t.forget(t.rec.Endpoint))
	}))
	if errors.Is(err, hook.ErrGone) {
		return err
	}
	return errors.Join(err, driver.Of(t.Parts, &t.rec).Remove(t.rec), t.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, t.rec.ID)
		if err == nil {
			row.Parent, row.ParentIdx, row.Trunk, row.Index = old.Parent, old.ParentIdx, old.Trunk, old.Index
			row.MAC, row.Endpoint, row.Former = old.MAC, old.Endpoint, nil
			err = record.Replace(tx, &row)
		}
		return err
	}))
}

// removeLink removes the interface that the attempt has created. Another one with its MAC stays: after a
// detach, it may be that of the namespace's next attachment.
func (t *attempt) removeLink() error {
	if t.rec.Guard != nil {
		return driver.Of(t.Parts, &t.rec).Remove(t.rec) // which finds it by the attachment's id
	}
	if t.link.Index == 0 {
		return nil
	}
	err := errors.Join(t.ns.DeleteSourceRules(t.link.Index, t.rec.Addrs), t.ns.DeleteInterface(t.link))
	if errors.Is(err, link.ErrForeign) {
		return nil
	}
	return err
}
