package driver

import (
	"context"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/parts"
)

// macvlan is a macvlan in the container's namespace.
type macvlan struct{ *parts.Parts }

// macvlan returns the description of the macvlan for hook/link. In mode passthru the MAC is the
// parent's, which the kernel sets.
func (s *Spec) macvlan() link.MacvlanSpec {
	m := link.MacvlanSpec{
		Name: s.Attachment.Interface, Parent: s.Parent, Mode: link.Mode(s.Network.Mode), MTU: s.Attachment.MTU,
		IPv6: s.hasIPv6(), RA: s.keepsRA(),
	}
	if !s.Network.SharesMAC() {
		m.MAC = s.Attachment.MAC
	}
	return m
}

func (d macvlan) Create(ctx context.Context, ns *link.Netns, s Spec) (c Created, err error) {
	c.Interface, err = d.Host.CreateMacvlan(ctx, ns, s.macvlan())
	return c, err
}

func (d macvlan) Readdress(ctx context.Context, ns *link.Netns, i link.Interface, s Spec) (c Created, err error) {
	mac, mtu := s.Attachment.MAC, s.Attachment.MTU
	if mtu != 0 && mtu != i.MTU {
		if err := ns.SetMTU(i.Index, mtu); err != nil {
			return Created{Interface: i}, err
		}
		i.MTU = mtu
	}
	if i.MAC == mac {
		return Created{Interface: i}, nil
	}
	c.Interface, err = ns.SetMAC(ctx, i, mac)
	failpoint.At("remac")
	return c, err
}

func (d macvlan) Exists(ns *link.Netns, a *hook.Attachment) (bool, error) {
	i, err := findMacvlan(ns, a)
	return i != nil, err
}

func (macvlan) OnLAN(ns *link.Netns, a *hook.Attachment, f func(index int) error) error {
	return ns.Do(func() error { return f(a.Index) })
}

func (macvlan) Matches(i *link.Interface, a *hook.Attachment) bool {
	return i.Kind == "macvlan" && i.ParentIndex == a.ParentIdx
}

func (d macvlan) Remove(a hook.Attachment) error { return remove(d.Parts, a, findMacvlan) }

func (macvlan) WhyUnwatchable(string) string { return "" }
func (macvlan) AsksFromParent() bool         { return false }

func findMacvlan(ns *link.Netns, a *hook.Attachment) (*link.Interface, error) {
	return ns.FindMacvlan(a.ParentIdx, a.Index, a.MAC)
}
