package driver

import (
	"context"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify"
)

// ipvlan is an ipvlan in the container's namespace. It has the parent's MAC.
type ipvlan struct{ *parts.Parts }

func (d ipvlan) Create(ctx context.Context, ns *link.Netns, s Spec) (c Created, err error) {
	c.Interface, err = d.Host.CreateIPVlan(ctx, ns, link.IPVlanSpec{
		Name: s.Attachment.Interface, Passing: temporaryName(s.Attachment.ID), Parent: s.Parent,
		Mode: link.IPVlanMode(s.Network.Mode), Flag: link.IPVlanFlag(s.Network.IPvlanFlag()),
		MTU: s.Attachment.MTU, IPv6: s.hasIPv6(), RA: s.keepsRA(),
	})
	return c, err
}

func (ipvlan) Readdress(_ context.Context, _ *link.Netns, i link.Interface, _ Spec) (Created, error) {
	return Created{Interface: i}, nil
}

func (ipvlan) Exists(ns *link.Netns, a *hook.Attachment) (bool, error) {
	i, err := findIPvlan(ns, a)
	return i != nil, err
}

func (d ipvlan) OnLAN(_ *link.Netns, a *hook.Attachment, f func(index int) error) error {
	return d.Host.Do(func() error { return f(a.ParentIdx) })
}

func (ipvlan) Matches(i *link.Interface, a *hook.Attachment) bool {
	return i.Kind == "ipvlan" && i.ParentIndex == a.ParentIdx
}

func (d ipvlan) Remove(a hook.Attachment) error { return remove(d.Parts, a, findIPvlan) }

// WhyUnwatchable implements [Driver]: endpoints are distinguished by MAC.
func (ipvlan) WhyUnwatchable(parent string) string {
	return fmt.Sprintf("driver ipvlan sends with the MAC of parent %q, as the host does", parent)
}

// AsksFromParent implements [Driver]: the kernel passes only frames for its addresses to an ipvlan,
// and the answer to a probe has none of them.
func (ipvlan) AsksFromParent() bool { return true }

func findIPvlan(ns *link.Netns, a *hook.Attachment) (*link.Interface, error) {
	return ns.FindIPVlan(a.ParentIdx, a.Index, a.Interface, temporaryName(a.ID))
}

// temporaryName returns a name that only the interface of this attachment can have.
func temporaryName(id verify.ID) string { return id.String()[17:] }
