package attach

import (
	"context"
	"net"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify"
)

// createInterface creates the interface of every driver: in the container's namespace itself, or
// guarded. On an error, the caller drops the record, which also removes an incomplete interface.
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
	guards, err := t.OpenGuards()
	if err != nil {
		return link.Interface{}, err
	}
	defer guards.Close()
	return t.Host.CreateGuarded(ctx, guards, t.ns, link.GuardedSpec{
		MacvlanSpec: spec, Tag: parts.GuardTag(t.rec.ID), Groups: t.multicastGroups(),
		Admit: func(outside, inside, mtu int) error {
			t.rec.Guard = &verify.Guard{
				Outside: outside, Inside: inside, MAC: t.rec.MAC, MTU: mtu,
				Addrs: t.addrs(), Gateways: t.rec.Gateways, Attachment: t.rec.ID,
			}
			return t.Guards.Admit(*t.rec.Guard)
		},
	})
}

// multicastGroups returns the multicast MACs that a guarded container receives: those of all nodes
// and of its addresses' solicited nodes, which IPv6 neighbour discovery needs. The macvlan does not
// learn the groups that the container joins itself.
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

// recreateGuarded deletes the links of a guarded attachment and creates them with the MAC and the
// addresses that the record has now.
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
