package hook

import (
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
)

// route puts the routes on. It runs inside the namespace.
func (t *attempt) route() error {
	t.rec.Defaults = nil
	if t.def.Routed() {
		return t.routeByHost()
	}
	for _, g := range t.rec.Gateways {
		if t.taken[g.Is4()] {
			continue
		}
		for _, r := range t.defaultRoutes(g) {
			if err := t.ns.AddRoute(r); err != nil {
				return err
			}
		}
		t.rec.Defaults = append(t.rec.Defaults, g)
	}
	for _, r := range t.extraRoutes() {
		if err := t.ns.AddRoute(r); err != nil {
			return err
		}
	}
	if !t.def.SourceRouting {
		return nil
	}
	return t.ns.RouteBySource(t.link.Index, t.rec.Addrs, t.ownRoutes())
}

// routeByHost sends everything to the host, which needs no next hop: there is no
// ARP to find one by.
func (t *attempt) routeByHost() error {
	// On a dummy nothing leads out, and the network's own subnets reach each
	// other by this route alone.
	if t.def.Internal && !t.def.Dummy() {
		return nil
	}
	for _, p := range t.rec.Addrs {
		if t.taken[p.Addr().Is4()] {
			continue
		}
		everywhere := link.DefaultRoute(t.link.Index, p.Addr())
		everywhere.Gateway = netip.Addr{}
		if err := t.ns.AddRoute(everywhere); err != nil {
			return err
		}
		t.rec.Defaults = append(t.rec.Defaults, everywhere.Dst.Addr())
	}
	return nil
}

// defaultRoutes are one, by the gateway. A pod has one from its cluster already,
// which stays, to be there again when the interface has gone: both halves of
// everywhere are more specific.
func (t *attempt) defaultRoutes(gateway netip.Addr) []link.Route {
	everywhere := link.DefaultRoute(t.link.Index, gateway)
	everywhere.OnLink = t.def.OnLink
	if t.r.Pod.Sandbox == "" {
		return []link.Route{everywhere}
	}
	lower, upper := everywhere, everywhere
	lower.Dst = netip.PrefixFrom(everywhere.Dst.Addr(), 1)
	b := lower.Dst.Addr().AsSlice()
	b[0] = 0x80
	a, _ := netip.AddrFromSlice(b)
	upper.Dst = netip.PrefixFrom(a, 1)
	return []link.Route{lower, upper}
}

// extraRoutes are the network's, where the router is in a subnet that this
// container has an address in.
func (t *attempt) extraRoutes() (routes []link.Route) {
	for _, r := range t.def.Routes {
		near := slices.ContainsFunc(t.rec.Addrs, func(p netip.Prefix) bool { return p.Masked().Contains(r.Via) })
		if near || t.def.OnLink && t.hasFamily(r.Via.Is4()) {
			routes = append(routes, link.Route{Index: t.link.Index, Dst: r.Dst, Gateway: r.Via, OnLink: t.def.OnLink})
		}
	}
	return routes
}

func (t *attempt) hasFamily(is4 bool) bool {
	return slices.ContainsFunc(t.rec.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
}

// ownRoutes are all that the interface would have if it were the only one.
func (t *attempt) ownRoutes() (routes []link.Route) {
	for _, p := range t.rec.Addrs {
		routes = append(routes, link.Route{Index: t.link.Index, Dst: p.Masked()})
	}
	for _, g := range t.rec.Gateways {
		r := link.DefaultRoute(t.link.Index, g)
		r.OnLink = t.def.OnLink
		routes = append(routes, r)
	}
	return append(routes, t.extraRoutes()...)
}
