package attach

import (
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Changes returns how the interfaces of attachments differ from what they were given, by the id of
// the attachment. It looks for all namespaces at once, because each search reads every process.
// The result leaves out attachments without changes, without a namespace, or in another state than
// attached.
func (l *Local) Changes(recs []hook.Attachment) (map[verify.ID][]verify.Change, error) {
	byInode := map[uint64][]hook.Attachment{}
	for _, a := range recs {
		if a.State == hook.Attached {
			byInode[a.Netns.Inode] = append(byInode[a.Netns.Inode], a)
		}
	}
	changes := map[verify.ID][]verify.Change{}
	err := l.Host.EachNetnsOf(func(inode uint64) bool { return byInode[inode] != nil }, func(ns *link.Netns) {
		for _, a := range byInode[ns.Inode] {
			if a.Netns.Cookie != ns.Cookie {
				continue
			}
			if list := l.changesIn(ns, &a); len(list) > 0 {
				changes[a.ID] = list
			}
		}
	})
	return changes, err
}

// changesIn returns how an attachment's interface differs from what it was given. If it cannot be
// read, that is the only change: the owner of the namespace can cause it, and must not prevent the
// look at others.
func (l *Local) changesIn(ns *link.Netns, a *hook.Attachment) []verify.Change {
	if a.Index == 0 {
		return nil // the ifindex is unknown
	}
	few := *ns
	few.Tries = 3
	found, err := found(&few, a)
	if err != nil {
		return []verify.Change{{Text: fmt.Sprintf("interface %q could not be read: %v", a.Interface, err)}}
	}
	return verify.Changes(given(a), found)
}

// given returns what an attachment's interface was given.
func given(a *hook.Attachment) verify.Given {
	g := verify.Given{
		Name: a.Interface, MAC: a.MAC, Addrs: a.Addrs, Defaults: a.Defaults, Addressed: len(a.Addrs) > 0,
	}
	if a.Driver == network.DriverIPvlan {
		g.MAC = [6]byte{} // the parent's, also when that changes
	}
	return g
}

// found reads the interface of an attachment by its ifindex. Another link may have that ifindex by
// now: then the interface is gone.
func found(ns *link.Netns, a *hook.Attachment) (f verify.Found, err error) {
	i, up, err := ns.LinkAt(a.Index)
	if err != nil || i == nil {
		return f, err
	}
	switch {
	case a.Guard != nil:
		f.Exists = i.Kind == "veth"
	case a.Driver == network.DriverIPvlan:
		f.Exists = i.Kind == "ipvlan" && i.ParentIndex == a.ParentIdx
	default:
		f.Exists = i.Kind == "macvlan" && i.ParentIndex == a.ParentIdx
	}
	f.Up, f.Name, f.MAC = up, i.Name, i.MAC
	addrs, err := ns.Addrs(a.Index)
	if err != nil {
		return f, err
	}
	for _, has := range addrs {
		f.Addrs = append(f.Addrs, has.Prefix)
	}
	if len(a.Defaults) == 0 {
		return f, nil
	}
	routes, err := ns.Defaults()
	for _, r := range routes {
		f.Defaults = append(f.Defaults, verify.Default{Via: r.Via(), Interface: ns.NameOf(r.Index), Own: r.Index == a.Index})
	}
	return f, err
}

// verdictsOf returns a verdict for each change that traffic cannot work with.
func verdictsOf(changes []verify.Change) (list []verify.Verdict) {
	for _, c := range changes {
		if c.Code != "" {
			list = append(list, verify.Verdict{Code: c.Code, Text: c.Text})
		}
	}
	return list
}
