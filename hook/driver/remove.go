package driver

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/parts"
)

// remove deletes the interface that find finds, if its namespace still exists (pods, pinned paths).
// In other cases the kernel deletes it in the background, together with the namespace.
func remove(
	p *parts.Parts, a hook.Attachment, find func(*link.Netns, *hook.Attachment) (*link.Interface, error),
) error {
	if a.MAC.IsZero() || a.ParentIdx == 0 {
		return nil
	}
	if a.Number != nil {
		// Most containers' namespaces end with them, and then no more is to be done.
		if exists, err := p.Host.HasNSID(*a.Number); err == nil && !exists {
			return nil
		}
	}
	// Inodes and cookies are valid within one boot.
	if boot, err := netns.BootID(); err != nil || boot != a.Netns.Boot {
		return err
	}
	ns, err := p.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
	if err != nil {
		return err
	}
	if ns == nil {
		return removeHidden(p, &a)
	}
	defer ns.Close()
	i, err := find(ns, &a)
	if err != nil || i == nil {
		return err
	}
	if err := ns.DeleteSourceRules(i.Index, a.Addrs); err != nil {
		return err
	}
	err = ns.DeleteInterface(*i)
	if errors.Is(err, link.ErrForeign) {
		return nil // the container has given the name to another link
	}
	return err
}

// removeHidden deletes the interface of an attachment that exists with its namespace (WithNetns), in a
// namespace that exists and cannot be opened, because it is pinned in another mount namespace or held
// by a descriptor only. That of any other container is ending: the kernel deletes the interface in the
// background, and waiting for it here costs two RCU grace periods.
func removeHidden(p *parts.Parts, a *hook.Attachment) error {
	if !a.WithNetns() {
		return nil
	}
	i, _, err := FindByNumber(p, a)
	if err != nil || i == nil {
		return err
	}
	return p.Host.DeleteIn(*a.Number, *i)
}

// FindByNumber returns the interface of an attachment by the number of its namespace, which need not be
// one that can be opened; nil if it finds none. The number and the ifindex are no proof, because the
// kernel gives the numbers of ended namespaces to others. A proof is the MAC of a macvlan, which is
// unique on its parent, or one of the attachment's addresses: an ipvlan has the MAC of its parent, and
// a container can change the MAC of a macvlan. An address that is in use there is not free,
// whatever interface has it. certain is false if the attachment has no number, or if an interface without a
// proof is on the same parent.
func FindByNumber(p *parts.Parts, a *hook.Attachment) (i *link.Interface, certain bool, err error) {
	if a.Number == nil || a.Index == 0 {
		return nil, false, nil
	}
	i, err = p.Host.LinkIn(*a.Number, a.Index)
	if err != nil || i == nil || !Of(p, a).Matches(i, a) {
		return nil, err == nil, err
	}
	if i.Kind == "macvlan" && i.MAC == a.MAC {
		return i, true, nil
	}
	if used, err := p.Host.HasAddrIn(*a.Number, a.Index, a.Addrs); err != nil || !used {
		return nil, false, err
	}
	return i, true, nil
}
