package driver

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify"
)

// guarded is a macvlan that stays in a namespace of the service. A veth pair leads from there to the
// container's namespace, and the guard passes only frames that carry the lease. Attacker: the root
// of a rootless container, who can send any frame and configure any link of its namespace.
type guarded struct{ *parts.Parts }

func (d guarded) Create(ctx context.Context, ns *link.Netns, s Spec) (c Created, err error) {
	guards, err := d.OpenGuards()
	if err != nil {
		return c, err
	}
	defer guards.Close()
	c.Interface, err = d.Host.CreateGuarded(ctx, guards, ns, link.GuardedSpec{
		MacvlanSpec: s.macvlan(), Tag: guardTag(s.Attachment.ID), Groups: s.multicastGroups(s.addrs()),
		Admit: func(outside, inside, mtu int) error {
			c.Guard = s.guard(outside, inside, mtu)
			return d.Guards.Admit(*c.Guard)
		},
	})
	return c, err
}

// guard returns the permit of the attachment between two links, given by ifindex. mtu is in bytes.
func (s *Spec) guard(outside, inside, mtu int) *verify.Guard {
	a := &s.Attachment
	return &verify.Guard{
		Outside: outside, Inside: inside, MAC: a.MAC, MTU: mtu,
		Addrs: s.addrs(), Gateways: a.Gateways, Autoconf: a.IsAutoconf(), Attachment: a.ID,
	}
}

// Readdress implements [Driver]. For another MAC, it deletes the links and creates them again.
func (d guarded) Readdress(ctx context.Context, ns *link.Netns, i link.Interface, s Spec) (Created, error) {
	if i.MAC != s.Attachment.MAC {
		if err := d.Remove(s.Attachment); err != nil {
			return Created{}, err
		}
		return d.Create(ctx, ns, s)
	}
	guards, err := d.OpenGuards()
	if err != nil {
		return Created{Interface: i}, err
	}
	defer guards.Close()
	return d.readdress(guards, ns, i, s)
}

// readdress gives the existing links another MTU and another permit. So the interface keeps its link-local
// address, and the addresses of the other family.
func (d guarded) readdress(guards, ns *link.Netns, i link.Interface, s Spec) (c Created, err error) {
	c.Interface = i
	before := s.Attachment.Guard
	if mtu := s.Attachment.MTU; mtu != 0 && mtu != i.MTU {
		if err := errors.Join(guards.SetMTU(before.Outside, mtu), guards.SetMTU(before.Inside, mtu),
			ns.SetMTU(i.Index, mtu)); err != nil {
			return c, err
		}
		c.MTU = mtu
	}
	now := s.guard(before.Outside, before.Inside, c.MTU)
	err = guards.Do(func() error {
		return errors.Join(d.Guards.Admit(*now),
			link.ChangeGroups(guardTag(now.Attachment), s.multicastGroups(before.Addrs), s.multicastGroups(now.Addrs)))
	})
	if err == nil {
		c.Guard = now
	}
	return c, err
}

// Exists implements [Driver]. The container's end exists as long as the service's end does.
func (d guarded) Exists(_ *link.Netns, a *hook.Attachment) (bool, error) {
	guards, err := d.OpenGuards()
	if err != nil {
		return false, err
	}
	defer guards.Close()
	tags, err := guards.GuardedTags()
	return slices.Contains(tags, guardTag(a.ID)), err
}

// OnLAN implements [Driver]. It runs f in the service's namespace.
func (d guarded) OnLAN(_ *link.Netns, a *hook.Attachment, f func(index int) error) error {
	guards, err := d.OpenGuards()
	if err != nil {
		return err
	}
	defer guards.Close()
	return guards.Do(func() error { return f(a.Guard.Outside) })
}

// Remove implements [Driver]. It deletes the links first, because that also drops the frames in
// their queues, and then the guard.
func (d guarded) Remove(a hook.Attachment) error {
	guards, err := d.OpenGuards()
	if err != nil {
		return err
	}
	defer guards.Close()
	return errors.Join(guards.DeleteGuarded(guardTag(a.ID)), d.Guards.Forget(*a.Guard))
}

func (guarded) WhyUnwatchable(string) string { return "" }
func (guarded) AsksFromParent() bool         { return false }

// Matches implements [Driver]. The parent's ifindex is that of the other end of the pair, in the
// namespace of the guards.
func (guarded) Matches(i *link.Interface, _ *hook.Attachment) bool { return i.Kind == "veth" }

// FindGuards sets the ifindexes of the guards of restored attachments. It finds them by the names of
// their links.
func FindGuards(p *parts.Parts, found []hook.Attachment) error {
	if !slices.ContainsFunc(found, func(a hook.Attachment) bool { return a.Guard != nil }) {
		return nil
	}
	guards, err := p.OpenGuards()
	if errors.Is(err, parts.ErrNoGuards) {
		return nil
	}
	if err != nil {
		return err
	}
	defer guards.Close()
	for _, a := range found {
		if a.Guard == nil {
			continue
		}
		if a.Guard.Outside, a.Guard.Inside, err = guards.GuardedLinks(guardTag(a.ID)); err != nil {
			return err
		}
	}
	return nil
}

// guardTag returns the part of an id that the links of a guarded attachment are named after, so
// that they can be deleted when only the intent is known.
func guardTag(id verify.ID) string { return id.String()[20:] }

// multicastGroups returns the multicast MACs that a guarded container with these addresses receives: those of
// all nodes and of its addresses' solicited nodes, which IPv6 neighbour discovery needs. The macvlan does not
// learn the groups that the container joins itself.
func (s *Spec) multicastGroups(addrs []netip.Addr) (macs []ether.MAC) {
	if !s.hasIPv6() {
		return nil
	}
	macs = append(macs, ether.MAC{0x33, 0x33, 0, 0, 0, 1})
	for _, a := range append(slices.Clone(addrs), s.Attachment.MAC.LinkLocal()) {
		if b := a.As16(); a.Is6() {
			macs = append(macs, ether.MAC{0x33, 0x33, 0xff, b[13], b[14], b[15]})
		}
	}
	return macs
}

// RemoveOrphans deletes the links of guarded attachments that are not in found. Otherwise their MACs
// would stay in use.
func RemoveOrphans(p *parts.Parts, found []hook.Attachment) error {
	guards, err := p.OpenGuards()
	if errors.Is(err, parts.ErrNoGuards) {
		return nil
	}
	if err != nil {
		return err
	}
	defer guards.Close()
	tags, err := guards.GuardedTags()
	for _, tag := range tags {
		if !slices.ContainsFunc(found, func(a hook.Attachment) bool { return a.Guard != nil && guardTag(a.ID) == tag }) {
			err = errors.Join(err, guards.DeleteGuarded(tag))
		}
	}
	return err
}
