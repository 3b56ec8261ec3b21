package hook

import (
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
)

// OtherDefault is a default route that somebody else gave the namespace, and that
// an attachment left where it was.
type OtherDefault struct {
	To        netip.Prefix `json:"to"`           // 0.0.0.0/0 or ::/0, or the lower half of it
	Via       netip.Addr   `json:"via,omitzero"` // none where it is on the link itself
	Interface string       `json:"interface"`
}

// route puts the routes on. It runs inside the namespace.
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

// routeEverywhere puts the default routes on that are for this interface.
func (t *attempt) addDefaultRoutes() error {
	t.rec.Defaults, t.rec.Others = nil, nil
	var others []link.Route
	if !t.loopbackOnly { // nothing led anywhere, and there are no routes to be read
		var err error
		if others, err = t.ns.Defaults(); err != nil {
			return err
		}
	}
	for _, r := range t.defaultRoutes() {
		is4 := r.Dst.Addr().Is4()
		if t.noDefault[is4] {
			whole := func(o link.Route) bool { return o.Dst.Bits() == 0 && o.Dst.Addr().Is4() == is4 }
			if i := slices.IndexFunc(others, whole); i >= 0 && t.clusterHasDefault() {
				t.recordOther(others[i])
			}
			continue
		}
		i := slices.IndexFunc(others, func(o link.Route) bool { return o.Dst.Addr().Is4() == is4 })
		routes := []link.Route{r}
		switch {
		case i < 0:
		case t.leavesInPlace(others[i]):
			t.recordOther(others[i])
			continue
		default:
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

// leave records a default route that stays in place.
func (t *attempt) recordOther(other link.Route) {
	t.rec.Others = append(t.rec.Others, OtherDefault{other.Dst, other.Gateway, t.ns.NameOf(other.Index)})
}

// leftToCluster reports whether the network leaves the default routes of this pod to the
// cluster.
func (t *attempt) clusterHasDefault() bool { return t.r.Pod.Sandbox != "" && !t.def.PodDefaultRoute }

// leaves says whether another's default route is left alone. Who asks for the
// default route, takes it; a network that takes that of pods (--pod-default-route)
// does so once in each pod.
func (t *attempt) leavesInPlace(other link.Route) bool {
	if t.want.Default != nil {
		return false
	}
	return t.r.Pod.Sandbox == "" || other.Dst.Bits() > 0
}

// defaultRoutes are those that the interface would have if it were the only one:
// by its gateways, or to the host, which needs no next hop, as there is no ARP to
// find one by.
func (t *attempt) defaultRoutes() (routes []link.Route) {
	if !t.def.Routed() {
		for _, g := range t.rec.Gateways {
			r := link.DefaultRoute(t.link.Index, g)
			r.OnLink = t.def.OnLink
			routes = append(routes, r)
		}
		return routes
	}
	// On a dummy nothing leads out, and the network's own subnets reach each
	// other by this route alone.
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
	return append(append(routes, t.defaultRoutes()...), t.extraRoutes()...)
}
