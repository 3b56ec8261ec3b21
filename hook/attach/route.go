package attach

import (
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
)

// configure sets addresses and routes. It must run inside the namespace.
func (t *attempt) configure() error {
	for _, p := range t.rec.Addrs {
		if t.isKept(p.Addr()) {
			continue
		}
		// The round has just probed the address, so the kernel does not: its own check would
		// leave an IPv6 address unusable for a second (RFC 4862 §5.4).
		if err := t.ns.AddAddr(t.link.Index, t.addrFor(p)); err != nil {
			return err
		}
	}
	if t.replacing != hook.IPv6 { // routes of IPv6 are from routers then
		if err := t.addRoutes(); err != nil {
			return err
		}
	}
	t.reached("address")
	return nil
}

// addRoutes adds all routes of the interface. It must run inside the namespace.
func (t *attempt) addRoutes() error {
	if err := t.addDefaultRoutes(); err != nil || t.def.Routed() {
		return err
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

// addDefaultRoutes adds the default routes that this interface gets, and records them and those of
// other managers that stay. If it takes a default route over, it adds two routes, each to one half
// of the addresses, instead of replacing the other route.
func (t *attempt) addDefaultRoutes() error {
	t.rec.Defaults, t.rec.Others = nil, nil
	others, err := t.defaultsOfOthers()
	if err != nil {
		return err
	}
	for _, r := range t.defaultRoutes() {
		takes, over := t.chooseDefault(hook.FamilyOf(r.Dst.Addr()), others)
		if !takes {
			continue
		}
		routes := []link.Route{r}
		if over {
			routes = r.Halves()
		}
		for _, r := range routes {
			if err := t.ns.AddRoute(r); err != nil {
				return err
			}
		}
		t.rec.Defaults = append(t.rec.Defaults, r.Via())
	}
	return nil
}

// defaultsOfOthers returns the default routes of the namespace that are not the interface's own.
func (t *attempt) defaultsOfOthers() ([]link.Route, error) {
	if t.loopbackOnly { // a namespace without another link has no routes
		return nil, nil
	}
	return t.ns.Defaults()
}

// chooseDefault reports whether the interface takes a default route of the family, and whether it takes
// it over from another manager. It records a default route of another manager that stays.
func (t *attempt) chooseDefault(fam hook.Family, others []link.Route) (takes, over bool) {
	of := func(o link.Route) bool { return hook.FamilyOf(o.Dst.Addr()) == fam }
	if t.noDefault[fam] {
		whole := func(o link.Route) bool { return o.Dst.Bits() == 0 && of(o) }
		if i := slices.IndexFunc(others, whole); i >= 0 && t.clusterHasDefault() {
			t.recordOther(others[i])
		}
		return false, false
	}
	i := slices.IndexFunc(others, of)
	switch {
	case i < 0:
		return true, false
	case t.leavesInPlace(others[i]):
		t.recordOther(others[i])
		return false, false
	}
	return true, true
}

// recordOther records a default route of another manager that stays in place.
func (t *attempt) recordOther(other link.Route) {
	t.rec.Others = append(t.rec.Others, hook.OtherDefault{
		To: other.Dst, Via: other.Gateway, Interface: t.ns.NameOf(other.Index),
	})
}

// leavesInPlace reports whether a default route of another manager stays in place. An interface
// with default-route true takes it over. A network with --pod-default-route takes it over once in
// each pod.
func (t *attempt) leavesInPlace(other link.Route) bool {
	if t.want.Default != nil {
		return false
	}
	return t.r.Pod.Sandbox == "" || other.Dst.Bits() > 0
}

// defaultRoutes returns the default routes that the interface would have if it were the only one:
// through its gateways, or in a routed mode to the host. There, a route has no next hop, because
// there is no ARP that would resolve one.
func (t *attempt) defaultRoutes() (routes []link.Route) {
	if !t.def.Routed() {
		for _, g := range t.rec.Gateways {
			r := link.DefaultRoute(t.link.Index, g)
			r.OnLink = t.def.OnLink
			routes = append(routes, r)
		}
		return routes
	}
	// A dummy parent leads to no other host, and the network's subnets reach each other only
	// through this route.
	if t.def.Internal && !t.def.Dummy() {
		return nil
	}
	for _, p := range t.rec.Addrs {
		r := link.DefaultRoute(t.link.Index, p.Addr())
		r.Gateway = netip.Addr{}
		routes = append(routes, r)
	}
	return routes
}

// extraRoutes returns the static routes that the interface gets: the network's, or the DHCP server's.
func (t *attempt) extraRoutes() (routes []link.Route) {
	for _, r := range t.def.RoutesFor(t.rec.Addrs) {
		routes = append(routes, link.Route{Index: t.link.Index, Dst: r.Dst, Gateway: r.Via, OnLink: t.def.OnLink})
	}
	return append(routes, t.routesOfLease()...)
}

// ownRoutes returns all routes that the interface would have if it were the only one.
func (t *attempt) ownRoutes() (routes []link.Route) {
	for _, p := range t.rec.Addrs {
		routes = append(routes, link.Route{Index: t.link.Index, Dst: p.Masked()})
	}
	return append(append(routes, t.defaultRoutes()...), t.extraRoutes()...)
}

// addrFor returns an address of the record for the interface: that of a lease ends with the lease.
func (t *attempt) addrFor(p netip.Prefix) link.Addr {
	l := t.rec.ServerLease(hook.FamilyOf(p.Addr()))
	if l == nil || l.Addr.Addr() != p.Addr() {
		return link.Addr{Prefix: p}
	}
	return addrOfLease(l)
}

// routesOfLease returns the routes that the DHCP server names, if the network has none of its own and
// is not internal. It leaves out halves of a default route for an interface without one.
func (t *attempt) routesOfLease() (routes []link.Route) {
	if t.rec.DHCP == nil || len(t.def.Routes) > 0 || t.def.Internal {
		return nil
	}
	for _, r := range t.rec.DHCP.Routes {
		if r.Dst.Bits() <= 1 && t.noDefault[hook.IPv4] {
			continue
		}
		onLink := t.def.OnLink && r.Via.IsValid()
		routes = append(routes, link.Route{Index: t.link.Index, Dst: r.Dst, Gateway: r.Via, OnLink: onLink})
	}
	return routes
}
