package attach

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Now is what the interface of an attachment has become.
type Now struct {
	Changes []verify.Change   // how it differs from what it was given
	Auto    []verify.AutoAddr // its addresses from router advertisements
}

// Now reads the interfaces of attachments, by the id of the attachment. It looks for all namespaces at
// once, because each search reads every process. The result leaves out attachments with nothing to
// say, or in another state than attached.
func (l *Local) Now(recs []hook.Attachment) (map[verify.ID]Now, error) {
	byInode := map[uint64][]hook.Attachment{}
	for _, a := range recs {
		if a.State == hook.Attached {
			byInode[a.Netns.Inode] = append(byInode[a.Netns.Inode], a)
		}
	}
	all, parents, found := map[verify.ID]Now{}, map[int]parentNow{}, map[verify.ID]bool{}
	err := l.Host.EachNetnsOf(func(inode uint64) bool { return byInode[inode] != nil }, func(ns *link.Netns) {
		for _, a := range byInode[ns.Inode] {
			if a.Netns.Cookie != ns.Cookie {
				continue
			}
			found[a.ID] = true
			p, known := parents[a.ParentIdx]
			if !known {
				p = l.parentNow(&a)
				parents[a.ParentIdx] = p
			}
			now := l.now(ns, &a, p)
			if p.down != "" {
				now.Changes = append(now.Changes, verify.Change{Code: verify.ParentDown, Text: p.down})
			}
			if len(now.Changes)+len(now.Auto) > 0 {
				all[a.ID] = now
			}
		}
	})
	if err == nil {
		err = l.addEnded(recs, found, all)
	}
	return all, err
}

// addEnded says of attachments without a namespace that they have ended, if a sweep would release them. The
// runtime has not called poststop, or the container was killed with its runtime.
func (l *Local) addEnded(recs []hook.Attachment, found map[verify.ID]bool, all map[verify.ID]Now) error {
	boot, err := netns.BootID()
	if err != nil {
		return err
	}
	none := func(hook.Netns) (bool, error) { return false, nil }
	for _, a := range recs {
		if a.State == hook.Attached && !found[a.ID] && !l.liveIn(&a, boot, none) {
			all[a.ID] = Now{Changes: []verify.Change{{Code: verify.InterfaceGone, Text: fmt.Sprintf("interface %q is gone "+
				"with its container: the next sweep, or \"lanyard gc\", removes the record", a.Interface)}}}
		}
	}
	return nil
}

// Changes returns how the interfaces of attachments differ from what they were given, as [Local.Now]
// does.
func (l *Local) Changes(recs []hook.Attachment) (map[verify.ID][]verify.Change, error) {
	all, err := l.Now(recs)
	changes := map[verify.ID][]verify.Change{}
	for id, now := range all {
		if len(now.Changes) > 0 {
			changes[id] = now.Changes
		}
	}
	return changes, err
}

// parentNow is the present state of the link that an attachment was created on.
type parentNow struct {
	link  link.Parent // zero if it is gone or unknown
	state verify.ParentState
	down  string // why no frame can pass; "" if they can, or if the link is gone
}

// parentNow reads the link that an attachment was created on. What cannot be read is taken as
// unchanged.
func (l *Local) parentNow(a *hook.Attachment) (p parentNow) {
	if a.ParentIdx == 0 {
		return p
	}
	found, err := l.Host.ParentAt(a.ParentIdx)
	if errors.Is(err, link.ErrNoLink) {
		p.state = l.removedParent(a)
	}
	if err == nil {
		p.link = found
		p.down, _ = l.Host.Down(found)
	}
	return p
}

// ParentFault returns why no frame of an attachment can pass through its parent: interface-gone if
// the link is gone, parent-down if it has no carrier or is down. It returns nil if they can. It does
// not open the container's namespace.
func (l *Local) ParentFault(a *hook.Attachment) *verify.Change {
	switch p := l.parentNow(a); {
	case p.state != verify.ParentKept:
		return &verify.Changes(given(a), verify.Found{Parent: p.state})[0]
	case p.down != "":
		return &verify.Change{Code: verify.ParentDown, Text: p.down}
	}
	return nil
}

// removedParent returns the state of a parent that has no link any more.
func (l *Local) removedParent(a *hook.Attachment) verify.ParentState {
	def, err := network.Load(l.Networks, a.Network)
	if err != nil {
		return verify.ParentRemoved
	}
	switch _, err := l.Parent(def); {
	case err == nil:
		return verify.ParentReplaced
	case def.Managed:
		return verify.ParentMissing
	}
	return verify.ParentRemoved
}

// changesIn returns how an attachment's interface differs from what it was given.
func (l *Local) changesIn(ns *link.Netns, a *hook.Attachment, parent parentNow) []verify.Change {
	return l.now(ns, a, parent).Changes
}

// now reads an attachment's interface, and whether it has lost its lease. If the interface cannot be
// read, that is said as a change: the owner of the namespace can cause it, and must not prevent the look
// at others.
func (l *Local) now(ns *link.Netns, a *hook.Attachment, parent parentNow) Now {
	lost := lostLease(a)
	if a.Index == 0 {
		return Now{Changes: lost} // the ifindex is unknown
	}
	few := *ns
	few.Tries = 3
	found, err := l.readInterface(&few, a)
	if err != nil {
		text := fmt.Sprintf("interface %q could not be read: %v", a.Interface, err)
		return Now{Changes: append(lost, verify.Change{Text: text})}
	}
	found.Parent, found.ParentName, found.ParentMTU = parent.state, parent.link.Name, parent.link.MTU
	if gone := !found.Exists || found.Parent != verify.ParentKept; !gone {
		lost = append(lost, lostDHCP(a)...)
		if hasLost(a, hook.IPv4) { // its default routes are gone with the address
			return Now{Changes: lost, Auto: found.Auto}
		}
	}
	g := given(a)
	if a.Guard == nil && found.MAC == parent.link.MAC {
		// The kernel lets no macvlan have its parent's MAC except in mode passthru, where it changes
		// with the parent's (drivers/net/macvlan.c, macvlan_addr_busy). A guarded container has a veth,
		// to which its root can give any MAC.
		g.MAC = [6]byte{}
	}
	return Now{Changes: append(lost, verify.Changes(g, found)...), Auto: found.Auto}
}

// hasLost reports whether an attachment has lost its lease of a DHCP server for a family.
func hasLost(a *hook.Attachment, f hook.Family) bool {
	l := a.ServerLease(f)
	return l != nil && l.Lost != ""
}

// lostDHCP returns a change for each lease of a DHCP server that an attachment has lost.
func lostDHCP(a *hook.Attachment) (list []verify.Change) {
	for f, address := range map[hook.Family]string{hook.IPv4: "address", hook.IPv6: "IPv6 address"} {
		if hasLost(a, f) {
			list = append(list, verify.Change{Code: verify.LeaseLost, Text: fmt.Sprintf("interface %q has no %s: %s: the "+
				"service asks for one again and again", a.Interface, address, a.ServerLease(f).Lost)})
		}
	}
	slices.SortFunc(list, func(a, b verify.Change) int { return cmp.Compare(a.Text, b.Text) })
	return list
}

// given returns what an attachment's interface was given.
func given(a *hook.Attachment) verify.Given {
	g := verify.Given{
		Name: a.Interface, MAC: a.MAC, Addrs: a.Addrs, Defaults: a.Defaults, Addressed: len(a.Addrs) > 0,
		Parent: a.Parent, MTU: a.MTU, Fixed: a.MTURequested != 0, Autoconf: a.IsAutoconf(),
	}
	if hasLost(a, hook.IPv6) { // an attempt may have recorded the address before it configures it
		g.Addrs = slices.DeleteFunc(slices.Clone(a.Addrs), func(p netip.Prefix) bool { return p.Addr().Is6() })
	}
	if a.Driver == network.DriverIPvlan {
		g.MAC = [6]byte{} // the parent's, also when that changes
	}
	return g
}

// readInterface reads the interface of an attachment by its ifindex. Another link may have that ifindex by
// now: then the interface is gone.
func (l *Local) readInterface(ns *link.Netns, a *hook.Attachment) (f verify.Found, err error) {
	i, up, err := ns.LinkAt(a.Index)
	if err != nil || i == nil {
		return f, err
	}
	f.Exists = driver.Of(l.Parts, a).Matches(i, a)
	f.Up, f.Name, f.MAC, f.MTU = up, i.Name, i.MAC, i.MTU
	addrs, err := ns.Addrs(a.Index)
	if err != nil {
		return f, err
	}
	for _, has := range addrs {
		switch {
		case !has.Autoconf || a.SLAAC == nil:
			f.Addrs = append(f.Addrs, has.Prefix)
		case len(f.Auto) < link.MaxAutoconf: // the container's root can add any number
			f.Auto = append(f.Auto, autoAddr(has))
		}
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
