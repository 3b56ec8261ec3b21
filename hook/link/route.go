package link

import (
	"errors"
	"fmt"
	"net/netip"

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
		err = n.whoRoutes(r.Dst)
	case errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH):
		err = fmt.Errorf("gateway %s is in no subnet of the interface", r.Gateway)
	}
	return fmt.Errorf("add route to %s: %w", r.Dst, plain(err))
}

// whoRoutes names the interface that has the route to dst.
func (n *Netns) whoRoutes(dst netip.Prefix) error {
	routes, err := n.Routes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst != dst {
			continue
		}
		if l, err := linkByIndex(n.handle, r.Index); err == nil && l != nil {
			return fmt.Errorf("there is one already, on interface %q", l.Attrs().Name)
		}
	}
	return errors.New("there is one already")
}

// Routes lists the unicast routes of the main table.
func (n *Netns) Routes() ([]Route, error) {
	var routes []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := whole(func() ([]netlink.Route, error) { return n.handle.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			if r.Type != unix.RTN_UNICAST {
				continue
			}
			gateway, _ := netip.AddrFromSlice(r.Gw)
			routes = append(routes, Route{
				Index: r.LinkIndex, Dst: prefix(r.Dst), Gateway: gateway.Unmap(),
				OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0,
			})
		}
	}
	return routes, nil
}
