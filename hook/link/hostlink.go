package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HostLinkSpec is an interface of the host's own beside the containers' on a
// parent. The kernel passes nothing between a parent and what stands on it: this
// is how the host gets there.
type HostLinkSpec struct {
	Name   string
	Parent Parent
	// IPVlan makes an ipvlan of mode l2, with the parent's MAC, and no macvlan of
	// mode bridge.
	IPVlan bool
	MAC    net.HardwareAddr // of a macvlan
	MTU    int              // 0 takes the parent's
	IPv6   bool             // off where false, as in MacvlanSpec
	// Addrs are the host's. They come without a route to their subnets: that
	// would take the host's own traffic off the parent.
	Addrs []netip.Addr
}

func (s *HostLinkSpec) link() netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.MTU = s.Name, s.Parent.Index, s.MTU
	if s.IPVlan {
		return &netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2, Flag: netlink.IPVLAN_FLAG_BRIDGE}
	}
	attrs.HardwareAddr = s.MAC
	return &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
}

// matches says whether a link is the one that was asked for, whole or half made.
func (s *HostLinkSpec) matches(l netlink.Link) bool {
	a := l.Attrs()
	return l.Type() == s.link().Type() && a.ParentIndex == s.Parent.Index && a.NetNsID < 0 && (s.IPVlan || bytes.Equal(a.HardwareAddr, s.MAC))
}

// EnsureHostLink makes the interface, or finishes one that somebody was killed
// over: what we make is up last of all. Several may do so at once.
func (h *Host) EnsureHostLink(ctx context.Context, spec HostLinkSpec) (index int, made bool, err error) {
	l, err := linkByName(h.handle, spec.Name)
	if err == nil && l == nil {
		made = true
		if err = h.handle.LinkAdd(spec.link()); errors.Is(err, unix.EEXIST) {
			made, err = false, nil // another was quicker
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
		err = fmt.Errorf("%w: it is of type %q, and not the one that we make: rename it", ErrForeign, l.Type())
	case !isUp(l):
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
		return fmt.Errorf("mark it: %w", explainErrno(err))
	}
	// It answers for its own addresses, and asks from them: whatever else the host
	// has is none of this LAN's business.
	conf := "ipv4/conf/" + spec.Name
	if err := inside(h.fd, func() error {
		return errors.Join(writeSysctl(conf+"/arp_ignore", "1"), writeSysctl(conf+"/arp_announce", "2"), setIPv6(spec.Name, spec.IPv6, false))
	}); err != nil {
		return err
	}
	for _, a := range spec.Addrs {
		addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD // who makes the network has asked already
		}
		err := retry(ctx, func() error { return h.handle.AddrAdd(l, addr) }, unix.EADDRINUSE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", a, explainErrno(err))
		}
	}
	if err := retry(ctx, func() error { return h.handle.LinkSetUp(l) }, unix.EADDRINUSE, unix.EBUSY); err != nil {
		return fmt.Errorf("set it up: %w", explainErrno(err))
	}
	return nil
}

// FindHostLink finds the interface that EnsureHostLink made, nil if there is
// none, and says whether it is up.
func (h *Host) FindHostLink(name string) (i *Interface, up bool, err error) {
	l, err := linkByName(h.handle, name)
	if err != nil || l == nil {
		return nil, false, err
	}
	found := interfaceOf(l)
	return &found, isUp(l), nil
}

// RemoveHostLink deletes the interface that EnsureHostLink made, with its routes.
// A missing one is no error; one that is not ours stays.
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

// RouteHost has the host send what is for an address by its link of that index,
// from its own address there. A route that is there already stays.
func (h *Host) RouteHost(index int, to, from netip.Addr) error {
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(to, to.BitLen())), Src: from.AsSlice(), Scope: netlink.SCOPE_LINK}
	err := h.handle.RouteAdd(r)
	if errors.Is(err, unix.EEXIST) {
		err = h.checkRoute(index, to)
	}
	if err != nil {
		return fmt.Errorf("route the host to %s: %w", to, explainErrno(err))
	}
	return nil
}

// checkRoute is nil where the host's route to an address is by the link of that
// index, and names the other link elsewhere.
func (h *Host) checkRoute(index int, to netip.Addr) error {
	routes, err := h.routesTo(to)
	for _, r := range routes {
		if r.LinkIndex == index {
			return nil
		}
	}
	if err != nil || len(routes) == 0 {
		return err // gone again, or not to be seen
	}
	if l, err := linkByIndex(h.handle, routes[0].LinkIndex); err == nil && l != nil {
		return fmt.Errorf("there is a route of somebody else's, by %q: take that away", l.Attrs().Name)
	}
	return errors.New("there is a route of somebody else's: take that away")
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

// UnrouteHost takes back what RouteHost did, by the name of the link. Where link
// or route are gone there is nothing to do.
func (h *Host) UnrouteHost(name string, to []netip.Addr) error {
	l, err := linkByName(h.handle, name)
	if err != nil || l == nil {
		return err
	}
	var errs []error
	for _, a := range to {
		err := h.handle.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Scope: netlink.SCOPE_LINK})
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("take the host's route to %s away: %w", a, explainErrno(err)))
		}
	}
	return errors.Join(errs...)
}

// HostAddrs lists the addresses that the host has, on whatever link.
func (h *Host) HostAddrs() (addrs []netip.Addr, err error) {
	list, err := dump(func() ([]netlink.Addr, error) { return h.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range list {
		addrs = append(addrs, prefix(a.IPNet).Addr())
	}
	return addrs, nil
}
