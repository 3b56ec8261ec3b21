package hook

import (
	"context"
	"errors"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// taken is a record that this process takes back, as it was before.
type detaching struct {
	Attachment
	before State
}

// take drops those references to an attachment that over picks. Where none is
// left the record is marked, so that nobody joins it any more, and comes back:
// it is the caller's to drop.
func dropReferences(tx Tx, a Attachment, over func(Container) bool) (*detaching, error) {
	left := slices.DeleteFunc(slices.Clone(a.Containers), over)
	if len(left) > 0 {
		if len(left) == len(a.Containers) {
			return nil, nil
		}
		row := a
		a.Containers = left
		return nil, write(tx, &row, &a)
	}
	self, err := link.Self()
	if err != nil {
		return nil, err
	}
	t := &detaching{a, a.State}
	a.State, a.Hook = Detaching, self
	return t, write(tx, &t.Attachment, &a)
}

// drop takes back whatever the record names, half made or whole, and deletes
// the record last: where a step fails, it stays for the next sweep. Every step
// is tried, and each is content where there is nothing to undo. The interface
// goes before the datapath's watch over it, and both before the lease: nobody
// is given an address that an old interface still answers for.
func (l *Local) drop(ctx context.Context, t detaching) error {
	err := errors.Join(l.removeHostRoutes(t.Attachment), l.dropLink(t.Attachment), l.revokePermit(t.Attachment), l.forget(t.Endpoint))
	if t.Former != nil {
		former := t.Attachment
		former.MAC = t.Former.MAC
		err = errors.Join(err, l.dropLink(former), l.revokePermit(former), l.forget(*t.Former))
	}
	if err != nil {
		return errors.Join(err, l.releaseForRetry(ctx, t.ID))
	}
	quarantine := t.Quarantine
	if t.before == Attaching {
		quarantine = 0 // nobody was ever told of the address
	}
	owner := ipam.Owner{Attachment: t.ID.String(), Network: t.Network, Interface: t.Interface}
	return l.DB.Hold(ctx, func() error {
		for _, pool := range t.Pools {
			err = errors.Join(err, l.Leases.Release(ctx, pool, owner, quarantine))
		}
		if err != nil {
			return errors.Join(err, l.releaseForRetry(ctx, t.ID))
		}
		return l.DB.Update(ctx, func(tx Tx) error { return remove(tx, t.ID) })
	})
}

// forget ends the watch of an endpoint that was named.
func (l *Local) forget(e verify.Endpoint) error {
	if e.MAC.IsZero() || e.Trunk == 0 {
		return nil
	}
	return l.Datapath.Forget(e)
}

// unlease lets nothing of an attachment's MAC leave by its parent any more, if
// the parent is held to leases.
func (l *Local) revokePermit(a Attachment) error {
	if !a.AtParent || l.Guards == nil || a.ParentIdx == 0 || a.MAC.IsZero() {
		return nil
	}
	return l.Guards.Unlease(a.ParentIdx, a.MAC)
}

// letGo leaves a record that could not be taken back whole to the next sweep: it
// would wait for as long as this process lives, which for a broker is long.
func (l *Local) releaseForRetry(ctx context.Context, id verify.ID) error {
	return l.DB.Update(ctx, func(tx Tx) error {
		a, err := get(tx, id)
		if errors.Is(err, ErrGone) {
			return nil
		}
		if err == nil {
			a.Hook = link.Process{}
			err = put(tx, &a)
		}
		return err
	})
}

// dropLink deletes the interface where its namespace lives on (pods, pinned
// paths). Elsewhere the kernel deletes it in the background, with the namespace.
func (l *Local) dropLink(a Attachment) error {
	if a.Guard != nil {
		return l.dropGuarded(a)
	}
	if a.MAC.IsZero() || a.ParentIdx == 0 {
		return nil
	}
	if a.Number != nil {
		// Most containers' namespace ends with them, and then this is all.
		if lives, err := l.Host.Numbered(*a.Number); err == nil && !lives {
			return nil
		}
	}
	// Inodes and cookies are a boot's own.
	if boot, err := link.BootID(); err != nil || boot != a.Netns.Boot {
		return err
	}
	ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
	if err != nil {
		return err
	}
	if ns == nil {
		return l.dropHidden(a)
	}
	defer ns.Close()
	i, err := findLink(ns, a)
	if err != nil || i == nil {
		return err
	}
	if err := ns.RouteNoMore(i.Index, a.Addrs); err != nil {
		return err
	}
	err = ns.DeleteMacvlan(*i)
	if errors.Is(err, link.ErrForeign) {
		return nil // the container made something else of the name
	}
	return err
}

// dropHidden deletes a macvlan in a namespace that exists and cannot be opened, because it is
// pinned in another mount namespace or held by a descriptor only.
func (l *Local) dropHidden(a Attachment) error {
	if a.Number == nil || a.Index == 0 {
		return nil
	}
	i, err := l.Host.LinkIn(*a.Number, a.Index)
	if err != nil || i == nil || !isMacvlanOf(i, &a) {
		return err
	}
	return l.Host.DeleteIn(*a.Number, *i)
}

// findLink finds a record's interface, whole or half made.
func findLink(ns *link.Netns, a Attachment) (*link.Interface, error) {
	if a.Driver == network.DriverIPvlan {
		return ns.FindIPVlan(a.ParentIdx, a.Index, a.Interface, temporaryName(a.ID))
	}
	return ns.FindMacvlan(a.ParentIdx, a.MAC.Hardware())
}
