package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// Route is a route of containers besides the default route.
type Route struct {
	// Dst has no host bits.
	Dst netip.Prefix `json:"dst"`
	// Via is a router in one of the network's subnets.
	Via netip.Addr `json:"via"`
}

// String returns the route in the form of the command line: 10.0.0.0/8,192.168.50.254.
func (r Route) String() string { return r.Dst.String() + "," + r.Via.String() }

// RoutesFor returns the static routes of an interface with these addresses: those with a router in
// the subnet of one of the addresses, or, with OnLink, of the same family.
func (d *Definition) RoutesFor(addrs []netip.Prefix) (routes []Route) {
	for _, r := range d.Routes {
		if slices.ContainsFunc(addrs, func(p netip.Prefix) bool {
			return p.Masked().Contains(r.Via) || d.OnLink && p.Addr().Is4() == r.Via.Is4()
		}) {
			routes = append(routes, r)
		}
	}
	return routes
}

func (d *Definition) validRoutes() error {
	for i, r := range d.Routes {
		if err := d.validRoute(r); err != nil {
			return fmt.Errorf("routes[%d].%w", i, err)
		}
		for _, before := range d.Routes[:i] {
			if before.Dst == r.Dst {
				return fmt.Errorf("routes[%d].dst: %s has a route already, via %s", i, r.Dst, before.Via)
			}
		}
	}
	return nil
}

func (d *Definition) validRoute(r Route) error {
	switch a := r.Dst.Addr(); {
	case !r.Dst.IsValid():
		return fmt.Errorf("dst: is missing: write it as 10.0.0.0/8")
	case a.Is4In6():
		return fmt.Errorf("dst: %s is an IPv4-mapped address: write it as IPv4", r.Dst)
	case r.Dst != r.Dst.Masked():
		return fmt.Errorf("dst: %s has host bits set: write %s", r.Dst, r.Dst.Masked())
	case a.IsLoopback(), a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("dst: %s is never routed", r.Dst)
	case slices.ContainsFunc(d.Subnets, func(s Subnet) bool { return s.Subnet == r.Dst }):
		return fmt.Errorf("dst: %s is a subnet of the network itself: omit the route", r.Dst)
	case r.Dst.Bits() == 0:
		return fmt.Errorf("dst: %s is the default route: set its router as gateway", r.Dst)
	case !r.Via.IsValid():
		return fmt.Errorf("via: is missing: name the router that leads to %s", r.Dst)
	case r.Via.Is4() != a.Is4():
		return fmt.Errorf("via: %s cannot be a router for %s", r.Via, r.Dst)
	}
	if d.OnLink {
		return validRouter("via", r.Via)
	}
	for _, s := range d.Subnets {
		if s.Subnet.Contains(r.Via) {
			if err := s.checkHost(r.Via); err != nil {
				return fmt.Errorf("via: %w", err)
			}
			return nil
		}
	}
	return fmt.Errorf("via: %s is in none of the network's subnets", r.Via)
}

// validRouter checks an address that may be outside of all subnets.
func validRouter(field string, a netip.Addr) error {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() ||
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s: %s is not a host address", field, a)
	}
	return nil
}

// validGateway returns errors of the form "gateway: reason".
func (s *Subnet) validGateway(onLink bool) error {
	if !s.Gateway.IsValid() {
		return nil
	}
	if onLink && !s.Subnet.Contains(s.Gateway) {
		if s.Gateway.Is4() != s.Subnet.Addr().Is4() {
			return fmt.Errorf("gateway: %s cannot be a router for %s", s.Gateway, s.Subnet)
		}
		return validRouter("gateway", s.Gateway)
	}
	if err := s.checkHost(s.Gateway); err != nil {
		if !s.Subnet.Contains(s.Gateway) {
			return fmt.Errorf("gateway: %w: set onlink for a router outside of its subnet", err)
		}
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// MayPod reports whether pods of a Kubernetes namespace may use the network. "" stands for a
// pod without a namespace.
func (d *Definition) MayPod(namespace string) bool {
	return slices.Contains(d.KubernetesNamespaces, "*") ||
		namespace != "" && slices.Contains(d.KubernetesNamespaces, namespace)
}

func (d *Definition) validPods() error {
	for i, n := range d.KubernetesNamespaces {
		// Kubernetes requires an RFC 1123 label.
		if n != "*" && (len(n) == 0 || len(n) > 63 || !consistsOf(n, "abcdefghijklmnopqrstuvwxyz0123456789-")) {
			return fmt.Errorf("kubernetes-namespaces[%d]: %s is not a namespace's name", i, Clip(n))
		}
	}
	switch {
	case d.PodDefaultRoute && len(d.KubernetesNamespaces) == 0:
		return fmt.Errorf("pod-default-route: no pod may use the network: list namespaces")
	case d.PodDefaultRoute && d.Internal:
		return fmt.Errorf("pod-default-route: an internal network has no default route: omit one of the two")
	}
	return nil
}
