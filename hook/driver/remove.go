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
		if exists, err := p.Host.Numbered(*a.Number); err == nil && !exists {
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
	if err := ns.RouteNoMore(i.Index, a.Addrs); err != nil {
		return err
	}
	err = ns.DeleteMacvlan(*i)
	if errors.Is(err, link.ErrForeign) {
		return nil // the container has given the name to another link
	}
	return err
}

// removeHidden deletes the macvlan of an attachment that exists with its namespace (WithNetns), in a
// namespace that exists and cannot be opened, because it is pinned in another mount namespace or held
// by a descriptor only. That of any other container is ending: the kernel deletes the macvlan in the
// background, and waiting for it here costs two RCU grace periods.
func removeHidden(p *parts.Parts, a *hook.Attachment) error {
	if !a.WithNetns() || a.Number == nil || a.Index == 0 {
		return nil
	}
	i, err := p.Host.LinkIn(*a.Number, a.Index)
	if err != nil || i == nil || !IsMacvlanOf(i, a) {
		return err
	}
	return p.Host.DeleteIn(*a.Number, *i)
}

// IsMacvlanOf reports whether an interface that was found by the number of its namespace
// belongs to the attachment.
func IsMacvlanOf(i *link.Interface, a *hook.Attachment) bool {
	return i.Kind == "macvlan" && i.ParentIndex == a.ParentIdx && i.MAC == a.MAC
}
