package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// HostLinkSpec describes an interface for the host on a parent. The kernel passes no
// frames between a parent and the macvlans on it, so the host needs an interface of its
// own to reach the containers.
type HostLinkSpec struct {
	Name   string
	Parent Parent
	// IPVlan selects an ipvlan of mode l2, with the parent's MAC, instead of a macvlan
	// of mode bridge.
	IPVlan bool
	MAC    ether.MAC // of a macvlan
	MTU    int       // 0: the parent's
	IPv6   bool      // as in MacvlanSpec
	// Addrs are the host's addresses. They are added without a route to their subnets,
	// which would divert the host's own traffic from the parent.
	Addrs []netip.Addr
	// Again gives an existing link its settings and addresses again: another program may have
	// changed them.
	Again bool
}

func (s *HostLinkSpec) link() netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.MTU, attrs.Group = s.Name, s.Parent.Index, s.MTU, group
	if s.IPVlan {
		return &netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2, Flag: netlink.IPVLAN_FLAG_BRIDGE}
	}
	attrs.HardwareAddr = s.MAC.Hardware()
	return &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
}

// matches reports whether a link is the one that s describes, finished or not.
func (s *HostLinkSpec) matches(l netlink.Link) bool {
	a := l.Attrs()
	return l.Type() == s.link().Type() && a.ParentIndex == s.Parent.Index && a.NetNsID < 0 &&
		(s.IPVlan || ether.MACOf(a.HardwareAddr) == s.MAC)
}

// EnsureHostLink creates the interface, or finishes an interrupted creation: the link is
// down until the last step. It returns the ifindex, and whether it created the link.
// Several processes may call it at once. It returns ErrForeign if another link has the name.
func (h *Host) EnsureHostLink(ctx context.Context, spec HostLinkSpec) (index int, made bool, err error) {
	l, err := linkByName(h.handle, spec.Name)
	if err == nil && l == nil {
		made = true
		if err = h.handle.LinkAdd(spec.link()); errors.Is(err, unix.EEXIST) {
			made, err = false, nil // another process created it
		}
		if err == nil {
			l, err = linkByName(h.handle, spec.Name)
		}
		if err == nil && l == nil {
			err = ErrNoLink
		}
	}
	switch {
	case err != nil:
		err = h.explainHostLink(err, &spec)
	case !spec.matches(l):
		err = fmt.Errorf("%w: a link of type %q has its name: rename that link", ErrForeign, l.Type())
	case !isUp(l) || spec.Again:
		err = h.finishHostLink(ctx, l, &spec)
	}
	if err != nil {
		return 0, false, fmt.Errorf("the host's link %q: %w", spec.Name, err)
	}
	return l.Attrs().Index, made, nil
}

func (h *Host) explainHostLink(err error, spec *HostLinkSpec) error {
	if spec.IPVlan {
		return explainIPVlan(err, &IPVlanSpec{Parent: spec.Parent})
	}
	return explainMacvlan(err, &MacvlanSpec{Parent: spec.Parent, Mode: ModeBridge})
}

func (h *Host) finishHostLink(ctx context.Context, l netlink.Link, spec *HostLinkSpec) error {
	if err := h.handle.LinkSetAlias(l, mark); err != nil {
		return fmt.Errorf("set its alias: %w", explainErrno(err))
	}
	// ARP replies and requests on this link use its own addresses only. The host's other
	// addresses must not be visible on this LAN.
	conf := "ipv4/conf/" + spec.Name
	if err := h.Do(func() error {
		return errors.Join(writeSysctl(conf+"/arp_ignore", "1"), writeSysctl(conf+"/arp_announce", "2"),
			setIPv6(spec.Name, spec.IPv6, false))
	}); err != nil {
		return err
	}
	for _, a := range spec.Addrs {
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD // the creator of the network has probed already
		}
		err := retry(ctx, func() error { return h.handle.AddrAdd(l, addr) }, unix.EADDRINUSE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", a, explainErrno(err))
		}
	}
	if err := retry(ctx, func() error { return h.handle.LinkSetUp(l) }, unix.EADDRINUSE, unix.EBUSY); err != nil {
		return fmt.Errorf("cannot set it up: %w", explainErrno(err))
	}
	return nil
}

// FindHostLink returns the interface that EnsureHostLink created, and whether it is up. It
// returns nil if the interface does not exist.
func (h *Host) FindHostLink(name string) (i *Interface, up bool, err error) {
	l, err := linkByName(h.handle, name)
	if err != nil || l == nil {
		return nil, false, err
	}
	found := interfaceOf(l)
	return &found, isUp(l), nil
}

// RemoveHostLink deletes the interface that EnsureHostLink created, with its routes. It
// returns nil if the link does not exist or has another type; a link of another type stays.
func (h *Host) RemoveHostLink(name string) error {
	l, err := linkByName(h.handle, name)
	if err == nil && l != nil && (l.Type() == "macvlan" || l.Type() == "ipvlan") {
		err = h.handle.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the host's link %q: %w", name, explainErrno(err))
	}
	return nil
}

// RouteHost adds a route on the host to the address to, through the link with that ifindex,
// with the source address from. It returns nil if that route exists already, and an error
// if one through another link does.
func (h *Host) RouteHost(index int, to, from netip.Addr) error {
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(to, to.BitLen())), Src: from.AsSlice(),
		Scope: netlink.SCOPE_LINK}
	err := h.handle.RouteAdd(r)
	if errors.Is(err, unix.EEXIST) {
		err = h.checkRoute(index, to)
	}
	if err != nil {
		return fmt.Errorf("route the host to %s: %w", to, explainErrno(err))
	}
	return nil
}

// checkRoute returns nil if the host's route to an address goes through the link with that
// ifindex, and otherwise an error that names the other link.
func (h *Host) checkRoute(index int, to netip.Addr) error {
	routes, err := h.routesTo(to)
	for _, r := range routes {
		if r.LinkIndex == index {
			return nil
		}
	}
	if err != nil || len(routes) == 0 {
		return err // deleted since, or not visible
	}
	if l, err := linkByIndex(h.handle, routes[0].LinkIndex); err == nil && l != nil {
		return fmt.Errorf("there is a foreign route already, through %q: delete that route", l.Attrs().Name)
	}
	return errors.New("there is a foreign route already: delete that route")
}

func (h *Host) routesTo(to netip.Addr) ([]netlink.Route, error) {
	family := netlink.FAMILY_V4
	if to.Is6() {
		family = netlink.FAMILY_V6
	}
	want := &netlink.Route{Dst: ipNet(netip.PrefixFrom(to, to.BitLen())), Table: unix.RT_TABLE_MAIN}
	return dump(func() ([]netlink.Route, error) {
		return h.handle.RouteListFiltered(family, want, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	})
}

// HostRoutes returns the addresses to which the host has a route of their own, with the ifindex of the
// link that it goes through: RouteHost adds such routes.
func (h *Host) HostRoutes() (map[HostAddr]bool, error) {
	to, main := map[HostAddr]bool{}, &netlink.Route{Table: unix.RT_TABLE_MAIN}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return h.handle.RouteListFiltered(family, main, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list the host's routes: %w", explainErrno(err))
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			if p := prefix(r.Dst); p.IsSingleIP() {
				to[HostAddr{p.Addr(), r.LinkIndex}] = true
			}
		}
	}
	return to, nil
}

// UnrouteHost deletes the routes to the addresses that RouteHost added through the link
// called name. It ignores a missing link or route.
func (h *Host) UnrouteHost(name string, to []netip.Addr) error {
	l, err := linkByName(h.handle, name)
	if err != nil || l == nil {
		return err
	}
	var errs []error
	for _, a := range to {
		err := h.handle.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())),
			Scope: netlink.SCOPE_LINK})
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete the host's route to %s: %w", a, explainErrno(err)))
		}
	}
	return errors.Join(errs...)
}

// HostAddr is an address of the host, or one that it has a route to.
type HostAddr struct {
	Addr  netip.Addr
	Index int // ifindex of its link
}

// HostAddrs lists the addresses that the host has, on whatever link.
func (h *Host) HostAddrs() (addrs []HostAddr, err error) {
	list, err := dump(func() ([]netlink.Addr, error) { return h.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range list {
		addrs = append(addrs, HostAddr{prefix(a.IPNet).Addr(), a.LinkIndex})
	}
	return addrs, nil
}

// HostLinkAt returns name and MAC of a link of the host's by its ifindex; the name is
// the number where the link is gone.
func (h *Host) HostLinkAt(index int) (name string, mac ether.MAC, err error) {
	l, err := linkByIndex(h.handle, index)
	if err != nil {
		return "", mac, fmt.Errorf("look at link %d: %w", index, explainErrno(err))
	}
	if l == nil {
		return strconv.Itoa(index), mac, nil
	}
	return l.Attrs().Name, ether.MACOf(l.Attrs().HardwareAddr), nil
}

// MacvlanWithMAC returns the name of the macvlan or macvtap in the host's namespace that is up on the
// link with the ifindex parent and has that MAC, or "". A macvlan that is down does not hold its MAC
// (macvlan_open in drivers/net/macvlan.c).
func (h *Host) MacvlanWithMAC(parent int, mac ether.MAC) (name string, err error) {
	links, err := dump(h.handle.LinkList)
	if err != nil {
		return "", fmt.Errorf("list the host's links: %w", explainErrno(err))
	}
	for _, l := range links {
		if kind := l.Type(); kind != "macvlan" && kind != "macvtap" {
			continue
		}
		a := l.Attrs()
		if a.ParentIndex == parent && a.NetNsID < 0 && isUp(l) && ether.MACOf(a.HardwareAddr) == mac {
			return a.Name, nil
		}
	}
	return "", nil
}
