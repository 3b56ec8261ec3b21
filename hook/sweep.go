package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Detach implements [Attacher]. It drops only references whose init has
// exited: an engine that keeps a container's id over a restart calls poststop
// for the old run after the new one was attached.
func (l *Local) Detach(ctx context.Context, containerID string) error {
	return l.detach(ctx, containerID, func(*Attachment) bool { return true })
}

// detach drops the container's references to those attachments that mine picks.
func (l *Local) detach(ctx context.Context, containerID string, mine func(*Attachment) bool) error {
	var dead []Attachment
	err := l.DB.Update(ctx, func(tx Tx) error {
		held, err := find(tx, bucketContainers, containerID)
		if err != nil {
			return err
		}
		for _, a := range held {
			if !mine(&a) {
				continue
			}
			a.Containers = slices.DeleteFunc(a.Containers, func(c Container) bool {
				return c.ID == containerID && !link.Alive(c.Process)
			})
			if len(a.Containers) == 0 {
				dead = append(dead, a) // the row stays as it is until all is undone
				continue
			}
			if err := put(tx, &a); err != nil {
				return err
			}
		}
		return nil
	})
	for _, a := range dead {
		err = errors.Join(err, l.drop(ctx, a))
	}
	if err != nil {
		return fmt.Errorf("detach container %q: %w", containerID, err)
	}
	return nil
}

// Sweep takes back what crashed hooks and vanished containers left, and
// returns what it took. The records are read first and the living looked at
// second: what is attached in between is not in the list.
func (l *Local) Sweep(ctx context.Context) ([]Attachment, error) {
	return l.sweep(ctx, func(*Attachment) bool { return true })
}

func (l *Local) sweep(ctx context.Context, which func(*Attachment) bool) (swept []Attachment, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	boot, err := link.BootID()
	if err != nil {
		return nil, err
	}
	for _, a := range recs {
		if !which(&a) || l.live(&a, boot) {
			continue
		}
		if derr := l.drop(ctx, a); derr != nil {
			err = errors.Join(err, fmt.Errorf("sweep %q on network %q: %w", a.Interface, a.Network, derr))
			continue
		}
		swept = append(swept, a)
	}
	return swept, err
}

// Attachments gives every record, finished or not.
func (l *Local) Attachments(ctx context.Context) (recs []Attachment, err error) {
	err = l.DB.View(ctx, func(tx Tx) (err error) {
		recs, err = all(tx)
		return err
	})
	return recs, err
}

// live says whether a record still has somebody to be there for. An intent
// lives with the hook that makes it, an attachment with its containers; one
// that was adopted knows of none, and lives with its namespace.
func (l *Local) live(a *Attachment, boot string) bool {
	if a.Netns.Boot != boot {
		return false
	}
	if a.State == Attaching {
		return link.Alive(a.Hook)
	}
	if len(a.Containers) == 0 {
		ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
		if ns != nil {
			ns.Close()
		}
		return err != nil || ns != nil
	}
	return slices.ContainsFunc(a.Containers, func(c Container) bool { return link.Alive(c.Process) })
}

// drop takes back whatever the record names, half made or whole, and deletes
// the record last: where a step fails, it stays for the next sweep. Every step
// is tried, and each is content where there is nothing to undo. The interface
// goes before the datapath's watch over it, and both before the lease: nobody
// is given an address that an old interface still answers for.
func (l *Local) drop(ctx context.Context, a Attachment) error {
	errs := []error{l.dropLink(a)}
	if !a.Endpoint.MAC.IsZero() && a.Endpoint.Trunk != 0 {
		errs = append(errs, l.Datapath.Forget(a.Endpoint))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	quarantine := a.Quarantine
	if a.State == Attaching {
		quarantine = 0 // nobody was ever told of the address
	}
	owner := ipam.Owner{Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface}
	return l.DB.Hold(ctx, func() error {
		for _, pool := range a.Pools {
			errs = append(errs, l.Leases.Release(ctx, pool, owner, quarantine))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return l.DB.Update(ctx, func(tx Tx) error { return remove(tx, a.ID) })
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
	ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
	if err != nil || ns == nil {
		return err
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

// findLink finds a record's interface, whole or half made.
func findLink(ns *link.Netns, a Attachment) (*link.Interface, error) {
	if a.Driver == network.DriverIPvlan {
		return ns.FindIPVlan(a.ParentIdx, a.Index, a.Interface, passing(a.ID))
	}
	return ns.FindMacvlan(a.ParentIdx, a.MAC.Hardware())
}
