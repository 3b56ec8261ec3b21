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
	Index   int
	Dst     netip.Prefix // 0.0.0.0/0 or ::/0 for the default route
	Gateway netip.Addr   // zero where Dst is on the link itself
	OnLink  bool         // the gateway is reachable although no subnet holds it
}

// DefaultRoute is the route to everywhere by a gateway.
func DefaultRoute(index int, gateway netip.Addr) Route {
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gateway.Is6() {
		everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return Route{Index: index, Dst: everywhere, Gateway: gateway}
}

// AddRoute adds a route; one to the same destination that is there already is
// an error that names its interface.
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

// routeExists names the interface that has the route to dst.
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
			return fmt.Errorf("there is one already, on interface %q", name)
		}
	}
	return errors.New("there is one already")
}

// NameOf is the name of the link of that index, "" where there is none.
func (n *Netns) NameOf(index int) string {
	l, err := linkByIndex(n.handle, index)
	if err != nil || l == nil {
		return ""
	}
	return l.Attrs().Name
}

// Via is the gateway, or 0.0.0.0 or :: for one on the link itself.
func (r Route) Via() netip.Addr {
	switch {
	case r.Gateway.IsValid():
		return r.Gateway
	case r.Dst.Addr().Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Halves are the two routes that together lead everywhere. Each is more specific
// than a default route, which is there again when they have gone.
func (r Route) Halves() []Route {
	lower, upper := r, r
	lower.Dst = netip.PrefixFrom(r.Dst.Addr(), 1)
	b := r.Dst.Addr().AsSlice()
	b[0] = 0x80
	a, _ := netip.AddrFromSlice(b)
	upper.Dst = netip.PrefixFrom(a, 1)
	return []Route{lower, upper}
}

// IsDefault says whether it is a default route, or the lower half of one.
func (r Route) IsDefault() bool { return r.Dst.Addr().IsUnspecified() && r.Dst.Bits() <= 1 }

// maxRoutes bounds how many routes of a family are read in search of the default
// route: the namespace's owner may have added any number.
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

// routeOf is the route; of several next hops, by the first.
func routeOf(r netlink.Route) Route {
	index, gw := r.LinkIndex, r.Gw
	if len(r.MultiPath) > 0 {
		index, gw = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
	}
	gateway, _ := netip.AddrFromSlice(gw)
	return Route{Index: index, Dst: prefix(r.Dst), Gateway: gateway.Unmap(), OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0}
}
