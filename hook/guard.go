package hook

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Guards hold the frames of guarded attachments to their leases. Admit belongs
// on a thread in the namespace that has the links. Implemented by package bpf.
type Guards interface {
	// Admit lets pass what carries the lease, and nothing else.
	Admit(verify.Guard) error
	// Forget lets nothing pass any more; an unknown guard is nil.
	Forget(verify.Guard) error
	// Guarded gives what has been let through and stopped.
	Guarded(verify.Guard) (verify.Guarded, error)

	// Hold lets leave by a parent what carries a lease, or one of the host's
	// MACs, and nothing else; Free lets all leave again.
	Hold(parent int, host []verify.MAC) error
	Held(parent int) (bool, error)
	Free(parent int) error
	// Lease lets leave what carries the lease; its links do not matter.
	Lease(parent int, g verify.Guard) error
	Unlease(parent int, mac verify.MAC) error
	// Leased gives what a MAC has sent by a parent, and what it was not let; no
	// MAC stands for all that have no lease.
	Leased(parent int, mac verify.MAC) (verify.Guarded, error)
}

// errNoGuards is returned where nobody has made the namespace for guarded
// attachments, which "lanyard serve" does.
var errNoGuards = errors.New("guarded attachments are the broker's to make")

// guardTag names the links of a guarded attachment: deleting them must need no
// more than the intent.
func guardTag(id verify.ID) string { return id.String()[20:] }

func (l *Local) openGuards() (*link.Netns, error) {
	if l.Guards == nil {
		return nil, errNoGuards
	}
	return l.Host.OpenNetnsPath(l.GuardNetns)
}

// place makes the interface: in the container's namespace itself, or guarded.
func (t *attempt) createInterface(ctx context.Context) (link.Interface, error) {
	if t.def.Driver == network.DriverIPvlan {
		return t.Host.CreateIPVlan(ctx, t.ns, link.IPVlanSpec{
			Name: t.rec.Interface, Passing: temporaryName(t.rec.ID), Parent: t.parent,
			Mode: link.IPVlanMode(t.def.Mode), Flag: link.IPVlanFlag(t.def.IPvlanFlag()),
			MTU: t.rec.MTU, IPv6: t.hasIPv6(), RA: t.def.IPAM == network.IPAMNone,
		})
	}
	spec := link.MacvlanSpec{
		Name: t.rec.Interface, Parent: t.parent, Mode: link.Mode(t.def.Mode),
		MAC: t.kernelMAC(), MTU: t.rec.MTU, IPv6: t.hasIPv6(), RA: t.def.IPAM == network.IPAMNone,
	}
	if t.rec.Guard == nil {
		return t.Host.CreateMacvlan(ctx, t.ns, spec)
	}
	guards, err := t.openGuards()
	if err != nil {
		return link.Interface{}, err
	}
	defer guards.Close()
	return t.Host.CreateGuarded(ctx, guards, t.ns, link.GuardedSpec{
		MacvlanSpec: spec, Tag: guardTag(t.rec.ID), Groups: t.multicastGroups(),
		Admit: func(outside, inside, mtu int) error {
			t.rec.Guard = &verify.Guard{
				Outside: outside, Inside: inside, MAC: t.rec.MAC, MTU: mtu,
				Addrs: t.addrs(), Gateways: t.rec.Gateways, Attachment: t.rec.ID,
			}
			return t.Guards.Admit(*t.rec.Guard)
		},
	})
}

// groups are the multicast MACs that reach the container: those by which IPv6
// finds its addresses. What it joins by itself does not reach the macvlan.
func (t *attempt) multicastGroups() (macs []net.HardwareAddr) {
	if !t.hasIPv6() {
		return nil
	}
	macs = append(macs, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1})
	for _, a := range append(t.addrs(), t.rec.MAC.LinkLocal()) {
		if b := a.As16(); a.Is6() {
			macs = append(macs, net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]})
		}
	}
	return macs
}

// replaceGuarded makes the links of a guarded attachment anew, with the MAC and
// the addresses that the record has now.
func (t *attempt) recreateGuarded(ctx context.Context) (err error) {
	if err := t.dropGuarded(t.rec); err != nil {
		return err
	}
	if t.link, err = t.createInterface(ctx); err != nil {
		return err
	}
	t.rec.Index = t.link.Index
	return nil
}

// dropGuarded takes the links away first: what is in their queues goes with
// them.
func (l *Local) dropGuarded(a Attachment) error {
	guards, err := l.openGuards()
	if err != nil {
		return err
	}
	defer guards.Close()
	return errors.Join(guards.DeleteGuarded(guardTag(a.ID)), l.Guards.Forget(*a.Guard))
}

// Guarded is what the guard of an attachment has let through and stopped; nil
// where there is none.
func (l *Local) Guarded(a Attachment) (*verify.Guarded, error) {
	if l.Guards == nil {
		return nil, nil
	}
	var g verify.Guarded
	var err error
	switch {
	case a.Guard != nil && a.Guard.Inside != 0:
		g, err = l.Guards.Guarded(*a.Guard)
	case a.Guard == nil && a.AtParent && !a.MAC.IsZero():
		g, err = l.Guards.Leased(a.ParentIdx, a.MAC)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &g, nil
}

// guarded says whether a caller's attachment is, and refuses what cannot be.
func (c *Caller) needsGuard(def *network.Definition) (bool, error) {
	if c == nil || def.BrokeredMode() == network.BrokeredDirect {
		return false, nil
	}
	if def.IPAM == network.IPAMNone {
		return false, fmt.Errorf("a network that gives no addresses cannot be guarded, as there are none to hold a container to: rootless containers need another, or one with --brokered %s", network.BrokeredDirect)
	}
	// A MAC that is the parent's own is not the lease's.
	if def.SharesMAC() {
		return false, fmt.Errorf("mode %s cannot be guarded: rootless containers need another network, or one with --brokered %s", def.Mode, network.BrokeredDirect)
	}
	return true, nil
}
