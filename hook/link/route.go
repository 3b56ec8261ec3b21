package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a unicast route in the main table.
type Route struct {
	Index   int          // ifindex
	Dst     netip.Prefix // 0.0.0.0/0 or ::/0 for the default route
	Gateway netip.Addr   // zero if Dst is on the link itself
	OnLink  bool         // the gateway is on the link although no subnet contains it
	RA      bool         // the kernel has it from a router advertisement; set by Defaults and Routes only
}

// DefaultRoute returns the default route by the interface with that ifindex through a gateway, of the
// gateway's family.
func DefaultRoute(index int, gateway netip.Addr) Route {
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gateway.Is6() {
		everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return Route{Index: index, Dst: everywhere, Gateway: gateway}
}

// AddRoute adds a route. If a route to the same destination exists, it returns an error that
// names that route's interface.
func (n *Netns) AddRoute(r Route) error { return n.addRoute(r, unix.RT_TABLE_MAIN) }

func (n *Netns) addRoute(r Route, table int) error {
	route := &netlink.Route{LinkIndex: r.Index, Dst: ipNet(r.Dst), Scope: netlink.SCOPE_UNIVERSE, Table: table}
	if r.Gateway.IsValid() {
		route.Gw = r.Gateway.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	err := n.handle.RouteAdd(route)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		err = n.routeExists(r.Dst)
	case errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH):
		err = fmt.Errorf("gateway %s is in no subnet of the interface", r.Gateway)
	}
	return fmt.Errorf("add route to %s: %w", r.Dst, explainErrno(err))
}

// routeExists returns an error that names the interface of the existing route to dst.
func (n *Netns) routeExists(dst netip.Prefix) error {
	routes, err := n.Routes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst != dst {
			continue
		}
		if name := n.NameOf(r.Index); name != "" {
			return fmt.Errorf("interface %q has one already", name)
		}
	}
	return errors.New("one exists already")
}

// NameOf returns the name of the link with that ifindex, or "" if it does not exist.
func (n *Netns) NameOf(index int) string {
	l, err := linkByIndex(n.handle, index)
	if err != nil || l == nil {
		return ""
	}
	return l.Attrs().Name
}

// Via returns the gateway, or 0.0.0.0 or :: for a route on the link itself.
func (r Route) Via() netip.Addr {
	switch {
	case r.Gateway.IsValid():
		return r.Gateway
	case r.Dst.Addr().Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Halves returns two routes, which together cover all destinations. Each is more specific
// than a default route, which applies again when they are deleted.
func (r Route) Halves() []Route {
	lower, upper := r, r
	lower.Dst = netip.PrefixFrom(r.Dst.Addr(), 1)
	b := r.Dst.Addr().AsSlice()
	b[0] = 0x80
	a, _ := netip.AddrFromSlice(b)
	upper.Dst = netip.PrefixFrom(a, 1)
	return []Route{lower, upper}
}

// IsDefault reports whether r is a default route, or the lower half of one.
func (r Route) IsDefault() bool { return r.Dst.Addr().IsUnspecified() && r.Dst.Bits() <= 1 }

// maxRoutes is the maximum number of routes of a family that Defaults reads: the owner of
// the namespace may have added any number.
const maxRoutes = 1 << 16

// Defaults lists the default routes of the main table, the more specific halves
// first.
func (n *Netns) Defaults() ([]Route, error) {
	var found []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		some, err := dumpIn(n.Tries, func() (some []Route, err error) {
			left := maxRoutes
			err = n.handle.RouteListFilteredIter(family, &netlink.Route{}, 0, func(r netlink.Route) bool {
				if r.Type == unix.RTN_UNICAST && routeOf(r).IsDefault() {
					some = append(some, routeOf(r))
				}
				left--
				return left > 0
			})
			return some, err
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		found = append(found, some...)
	}
	slices.SortStableFunc(found, func(a, b Route) int { return b.Dst.Bits() - a.Dst.Bits() })
	return found, nil
}

// Routes lists the unicast routes of the main table.
func (n *Netns) Routes() ([]Route, error) {
	var routes []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := dumpIn(n.Tries, func() ([]netlink.Route, error) { return n.handle.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			if r.Type == unix.RTN_UNICAST {
				routes = append(routes, routeOf(r))
			}
		}
	}
	return routes, nil
}

// routeOf converts a route. Of several next hops it takes the first.
func routeOf(r netlink.Route) Route {
	index, gw := r.LinkIndex, r.Gw
	if len(r.MultiPath) > 0 {
		index, gw = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
	}
	gateway, _ := netip.AddrFromSlice(gw)
	return Route{Index: index, Dst: prefix(r.Dst), Gateway: gateway.Unmap(), OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0,
		RA: r.Protocol == unix.RTPROT_RA}
}
