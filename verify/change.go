package verify

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Given is what an attachment's interface was given at its start.
type Given struct {
	Name      string
	MAC       ether.MAC      // zero if it follows the parent's
	Addrs     []netip.Prefix // empty if the workload configures its own
	Defaults  []netip.Addr   // next hops of its default routes; unspecified: the host
	Addressed bool           // the network assigns addresses: others were added by the workload
	Parent    string         // the host's link that it was created on
	MTU       int            // 0 if unknown
	Fixed     bool           // the MTU was requested; otherwise it is the parent's at the start
	Autoconf  bool           // the kernel adds addresses from router advertisements
}

// ParentState is what has become of the link that an interface was created on. The kernel deletes
// the interface with it, in every namespace.
type ParentState int

// States of a parent.
const (
	ParentKept     ParentState = iota
	ParentRemoved              // no link has its name
	ParentMissing              // no link has its name, and Lanyard creates it when it is needed
	ParentReplaced             // another link has its name
)

// Found is the interface in its namespace, as it is now.
type Found struct {
	Exists   bool // false if it was deleted, or moved to another namespace
	Up       bool
	Name     string
	MAC      ether.MAC
	Addrs    []netip.Prefix
	Defaults []Default // of the whole namespace
	Parent   ParentState
	Auto     []AutoAddr // from router advertisements; Addrs does not have them

	ParentName     string // "" if unknown
	MTU, ParentMTU int    // 0 if unknown
}

// Default is a default route, or the lower half of one.
type Default struct {
	Via       netip.Addr // unspecified: it has no next hop
	Interface string
	Own       bool // it leads through the attachment's interface
}

// Change is one way in which an interface is not as it was given.
type Change struct {
	// Code is InterfaceGone, InterfaceChanged, LeaseLost or NoRouter if traffic cannot work with it; ""
	// if it can.
	Code Code   `json:"code,omitempty"`
	Text string `json:"text"`
}

// Changes returns how an interface differs from what it was given. It does not report what follows
// from a reported change: an interface that is down has no routes. The container's root can cause
// all of it, so that the list and each text are short.
func Changes(g Given, f Found) (list []Change) {
	add := func(c Code, format string, args ...any) {
		list = append(list, Change{c, fmt.Sprintf("interface %q ", g.Name) + fmt.Sprintf(format, args...)})
	}
	if !f.Exists || f.Parent != ParentKept {
		add(InterfaceGone, "%s, or start the container again", goneText(g, f))
		return list
	}
	if f.ParentName != "" && f.ParentName != g.Parent {
		add("", "is on parent %q, which is now called %q: containers of the network cannot start until "+
			"\"lanyard network update\" names it", g.Parent, f.ParentName)
	}
	if f.Name != g.Name {
		add("", "was renamed to %q in the container", f.Name)
	}
	if !g.MAC.IsZero() && f.MAC != g.MAC {
		add(InterfaceChanged, "does not have MAC %s, which it was given, but %s: set it back in the container, "+
			"or start the container again", g.MAC, f.MAC)
	}
	if !f.Up {
		add(InterfaceChanged, "was set down in the container: set it up there, or start the container again")
		return list
	}
	if text := mtuChange(g, f); text != "" {
		add("", "%s", text)
	}
	lost := lostAddrs(g, f)
	for _, p := range lost {
		add(InterfaceChanged, "does not have address %s, which it was given: add it in the container, "+
			"or start the container again", p)
	}
	if added := addedAddrs(g, f); len(added) > 0 {
		add("", "has addresses that it was not given: %s", abridged(added))
	}
	if g.Autoconf && !Usable(f.Auto) {
		add(NoRouter, "%s", noAutoText(f.Auto))
	}
	for _, via := range g.Defaults {
		sameFamily := func(p netip.Prefix) bool { return p.Addr().Is4() == via.Is4() }
		if slices.ContainsFunc(lost, sameFamily) {
			continue // the kernel deletes an address's routes with it
		}
		if code, text := defaultChange(via, f.Defaults); text != "" {
			add(code, "%s", text)
		}
	}
	return list
}

// noAutoText returns why an interface has no usable address from router advertisements.
func noAutoText(addrs []AutoAddr) string {
	const check = ": check the router, and \"lanyard verify\""
	if len(addrs) == 0 {
		return "has no IPv6 address, because no router advertises a prefix" + check
	}
	return "has no usable IPv6 address from a router: " + AutoText(addrs) + check
}

// mtuChange returns how the MTU differs from the one that a container gets that starts now, "" if it
// does not. The kernel lowers the MTU of a macvlan and of a VLAN with that of the link below, and
// does not raise it again; it does not lower that of a guarded container's veth.
func mtuChange(g Given, f Found) string {
	const again = `"ip link set mtu" in the container, or start it again`
	switch {
	case g.MTU == 0 || f.MTU == 0 || f.ParentMTU == 0:
		return ""
	case f.MTU > f.ParentMTU:
		return fmt.Sprintf("has MTU %d, and its parent %q only %d: larger frames are dropped: use %s",
			f.MTU, g.Parent, f.ParentMTU, again)
	case f.MTU < g.MTU && f.ParentMTU < g.MTU:
		return fmt.Sprintf("has MTU %d instead of %d, because that of its parent %q was lowered to %d",
			f.MTU, g.MTU, g.Parent, f.ParentMTU)
	case f.MTU < g.MTU:
		return fmt.Sprintf("has MTU %d instead of %d: it was set in the container, or that of parent %q was lower "+
			"for a time: "+
			"use %s", f.MTU, g.MTU, g.Parent, again)
	case !g.Fixed && f.MTU < f.ParentMTU:
		return fmt.Sprintf("has MTU %d, and containers that start now get %d, because that of parent %q was raised: use %s",
			f.MTU, f.ParentMTU, g.Parent, again)
	}
	return ""
}

// goneText returns why an interface is gone, and how to create it again.
func goneText(g Given, f Found) string {
	const reattach = `run "lanyard reattach"`
	switch f.Parent {
	case ParentRemoved:
		return fmt.Sprintf("is gone: its parent %q was removed from this host: add %q again and %s",
			g.Parent, g.Parent, reattach)
	case ParentMissing:
		return fmt.Sprintf("is gone: its parent %q was removed from this host: %s, which creates %q again",
			g.Parent, reattach, g.Parent)
	case ParentReplaced:
		return fmt.Sprintf("is gone: its parent %q was removed from this host and added again: %s", g.Parent, reattach)
	}
	return "is gone from the container's namespace: it was deleted there, or moved to another namespace: " + reattach
}

// lostAddrs returns the given addresses that the interface lacks.
func lostAddrs(g Given, f Found) (lost []netip.Prefix) {
	for _, p := range g.Addrs {
		if !slices.ContainsFunc(f.Addrs, func(has netip.Prefix) bool { return has.Addr() == p.Addr() }) {
			lost = append(lost, p)
		}
	}
	return lost
}

// addedAddrs returns the addresses that the interface was not given, or was given with another
// prefix length. The kernel sets IPv6 link-local addresses itself.
func addedAddrs(g Given, f Found) (added []netip.Prefix) {
	for _, has := range f.Addrs {
		linkLocal := has.Addr().Is6() && has.Addr().IsLinkLocalUnicast()
		if g.Addressed && !linkLocal && !slices.Contains(g.Addrs, has) {
			added = append(added, has)
		}
	}
	return added
}

// abridged returns the first addresses of a list, and the number of the others.
func abridged(list []netip.Prefix) string {
	const shown = 4
	var words []string
	for _, p := range list[:min(shown, len(list))] {
		words = append(words, p.String())
	}
	if more := len(list) - shown; more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}

// defaultChange returns the change of the default route via a next hop, "" if the route exists. An
// additional, more specific route, as a VPN adds (0.0.0.0/1), is not a change.
func defaultChange(via netip.Addr, now []Default) (Code, string) {
	if slices.ContainsFunc(now, func(d Default) bool { return d.Own && d.Via == via }) {
		return "", ""
	}
	name := "its default route"
	if !via.IsUnspecified() {
		name += " through " + via.String()
	}
	i := slices.IndexFunc(now, func(d Default) bool { return d.Via.Is4() == via.Is4() })
	if i < 0 {
		return InterfaceChanged, "has lost " + name + ": add it in the container, or start the container again"
	}
	by := fmt.Sprintf("interface %q", now[i].Interface)
	if now[i].Own {
		by = "the same interface"
	}
	if !now[i].Via.IsUnspecified() {
		by = now[i].Via.String() + " on " + by
	}
	return "", "has lost " + name + ": the container's default route leads through " + by
}
