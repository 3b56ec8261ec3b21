package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addr is an address on an interface.
type Addr struct {
	Prefix netip.Prefix
	// DAD leaves duplicate address detection to the kernel; without it an IPv6
	// address is usable at once. It says nothing for IPv4.
	DAD bool
	// Tentative and Duplicate are read back only: DAD is under way, or found
	// another holder.
	Tentative, Duplicate bool
}

// addrBusy bounds the wait for an address that an ipvlan elsewhere has.
const addrBusy = 3 * time.Second

// AddAddr puts an address on the interface of that index. An IPv4 subnet of
// more than two addresses gets its broadcast address with it (RFC 3021 has
// none for two).
func (n *Netns) AddAddr(index int, a Addr) error {
	addr := &netlink.Addr{IPNet: ipNet(a.Prefix)} // the library fills Broadcast in
	if a.Prefix.Addr().Is6() && !a.DAD {
		addr.Flags = unix.IFA_F_NODAD
	}
	// An ipvlan's address is taken (ipvlan_addr_busy) until the namespace of the
	// container that had it is cleaned up in the background.
	err := retryFor(context.Background(), addrBusy, func() error { return n.handle.AddrAdd(onIndex(index), addr) }, unix.EADDRINUSE)
	if err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = errors.New("the interface has it already")
		}
		return fmt.Errorf("add address %s: %w", a.Prefix, plain(err))
	}
	return nil
}

// DelAddr takes an address off; an absent one is no error.
func (n *Netns) DelAddr(index int, p netip.Prefix) error {
	err := n.handle.AddrDel(onIndex(index), &netlink.Addr{IPNet: ipNet(p)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete address %s: %w", p, plain(err))
	}
	return nil
}

// Addrs lists the addresses of the interface of that index, or of all if 0.
func (n *Netns) Addrs(index int) ([]Addr, error) {
	var on netlink.Link
	if index != 0 {
		on = onIndex(index)
	}
	list, err := whole(func() ([]netlink.Addr, error) { return n.handle.AddrList(on, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := make([]Addr, 0, len(list))
	for _, a := range list {
		addrs = append(addrs, Addr{
			Prefix:    prefix(a.IPNet),
			DAD:       a.Flags&unix.IFA_F_NODAD == 0,
			Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0,
			Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,
		})
	}
	return addrs, nil
}

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

func onIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
