package attach

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/record"
)

// Attachments returns all records, in every state.
func (l *Local) Attachments(ctx context.Context) (recs []hook.Attachment, err error) {
	err = l.WithDB(ctx, func() error {
		return l.DB.View(ctx, func(tx record.Tx) (err error) {
			if err = record.Ready(tx); err == nil {
				recs, err = record.All(tx)
			}
			return err
		})
	})
	return recs, err
}

// live reports whether a record is still in use. A record that is being attached or detached
// is live while the process that does this runs, and an attachment while one of its containers
// runs. The attachment of a pod, or of a namespace named by path, is also live until a container deletes
// its interface, and an attachment that was rebuilt, with unknown containers, while its namespace exists.
func (l *Local) live(a *hook.Attachment, boot string) bool { return l.liveIn(a, boot, l.hasNetns) }

// liveIn is live with another way to look for namespaces.
func (l *Local) liveIn(a *hook.Attachment, boot string, exists netnsFinder) bool {
	switch {
	case a.Netns.Boot != boot:
		return false
	case a.State != hook.Attached:
		return netns.Alive(a.Hook)
	case a.InUse():
		return true
	case a.WithNetns():
		return l.hasInterface(a, exists)
	case len(a.Containers) > 0:
		return false
	}
	found, err := exists(a.Netns)
	return err != nil || found
}

// netnsFinder reports whether a namespace exists. An error means that this is unknown.
type netnsFinder func(hook.Netns) (bool, error)

// hasNetns is a netnsFinder that searches all processes and pins at each call.
func (l *Local) hasNetns(n hook.Netns) (bool, error) {
	ns, err := l.Host.FindNetns(n.Inode, n.Cookie)
	if ns != nil {
		ns.Close()
	}
	return ns != nil, err
}

// netnsFinderFor returns a netnsFinder for the namespaces of recs. It searches all processes
// and pins once, at the first call. A namespace that is gone then does not come back.
func (l *Local) netnsFinderFor(recs []hook.Attachment) netnsFinder {
	existing := sync.OnceValues(func() (map[[2]uint64]bool, error) {
		inodes, found := map[uint64]bool{}, map[[2]uint64]bool{}
		for _, a := range recs {
			inodes[a.Netns.Inode] = true
		}
		err := l.Host.EachNetnsOf(
			func(inode uint64) bool { return inodes[inode] },
			func(n *link.Netns) { found[[2]uint64{n.Inode, n.Cookie}] = true },
		)
		return found, err
	})
	return func(n hook.Netns) (bool, error) {
		found, err := existing()
		return found[[2]uint64{n.Inode, n.Cookie}], err
	}
}

// hasInterface reports whether a pod's interface is still in the sandbox's namespace, or can be created
// there again. In most cases one request by the namespace's number (nsid) decides, and for others it is
// whether the namespace exists: a container can change the MAC and the addresses of its interface.
//
// It returns false if a container deleted the interface: the next container then attaches
// again, instead of joining an attachment without an interface. An interface that went with its parent
// was not deleted by a container: Reattach needs the record and the lease.
func (l *Local) hasInterface(a *hook.Attachment, exists netnsFinder) bool {
	i, certain, err := driver.FindByNumber(l.Parts, a)
	switch {
	case err != nil || i != nil:
		return true // with an error it is unknown: the address may be in use
	case certain && a.Former == nil && l.hasParent(a): // Former: Reattach is creating it
		return false
	}
	found, err := exists(a.Netns)
	return err != nil || found
}

// hasParent reports whether the link that an attachment was created on exists. An error counts as yes.
func (l *Local) hasParent(a *hook.Attachment) bool {
	_, err := l.Host.ParentAt(a.ParentIdx)
	return !errors.Is(err, link.ErrNoLink)
}

// whileAttached runs f, which adds or removes what the record of an attachment names, such as its
// endpoint, with the record as it is now. It returns an error that wraps hook.ErrGone if the attachment
// was removed. A detach marks the record first, and then removes what it names. So the record is read,
// and f runs, in one transaction: otherwise what f adds could stay after the detach, and what f removes
// could be that of another attachment. f must not begin another transaction.
func (l *Local) whileAttached(ctx context.Context, a *hook.Attachment, f func(now *hook.Attachment) error) error {
	return l.DB.View(ctx, func(tx record.Tx) error {
		now, err := record.Get(tx, a.ID)
		if err == nil && now.State != hook.Attached {
			err = hook.ErrGone
		}
		if err != nil {
			return fmt.Errorf("%q of network %q: %w", a.Interface, a.Network, err)
		}
		return f(&now)
	})
}
