package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/network"
)

// A lan is a trunk that leads to the gateway, with a subnet. Each contender has its own, so that the
// interfaces of one cost the others nothing. It has IPv4 only, which all contenders support, and no
// tags, which every kernel supports.
type lan struct {
	trunk   string // also the name of lanyard's network
	subnet  netip.Prefix
	gateway netip.Addr
}

// plugAll makes the lans of all contenders, and lanyard's networks on its own.
func (w *world) plugAll() error {
	for _, name := range []string{
		ours, alone, former, guarded, oursCNI, dhcpLAN(ours), cni, netavark, oldNetavark, floor, dhcpLAN(cni),
		dhcpLAN(netavark), docker, dockerAux,
	} {
		n := len(w.lans)
		l := lan{trunk: fmt.Sprintf("trunk%d", n), gateway: netip.AddrFrom4([4]byte{10, byte(50 + n), 0, 1})}
		l.subnet = netip.PrefixFrom(l.gateway, 16).Masked()
		w.lans[name] = l
		if err := w.plug(l); err != nil {
			return err
		}
	}
	for _, name := range []string{ours, alone, former, guarded, oursCNI} {
		if err := w.define(w.lans[name], nil); err != nil {
			return err
		}
	}
	return w.define(w.lans[dhcpLAN(ours)], func(d *network.Definition) { d.IPAM, d.Subnets = network.IPAMDHCP, nil })
}

// plug joins a lan's trunk and an interface of the gateway.
func (w *world) plug(l lan) error {
	nic := l.nic()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: l.trunk}, PeerName: nic,
		PeerNamespace: netlink.NsPid(w.gateway.pid),
	}
	if err := errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth)); err != nil {
		return fmt.Errorf("join trunk %s and gateway: %w", l.trunk, err)
	}
	return w.gateway.within(func(h handle) error {
		return h.address(nic, netip.PrefixFrom(l.gateway, l.subnet.Bits()))
	})
}

// nic returns the name of the gateway's interface on the lan.
func (l lan) nic() string { return "to-" + l.trunk }

// define defines lanyard's network on a lan. change, if not nil, changes the definition first.
func (w *world) define(l lan, change func(*network.Definition)) error {
	def := &network.Definition{
		Name: l.trunk, ID: network.NewID(), Driver: network.DriverMacvlan, Parent: l.trunk, Mode: network.ModeBridge,
		Subnets:    []network.Subnet{{Subnet: l.subnet, Gateway: l.gateway}},
		AllowUsers: []string{strconv.Itoa(alice)}, MaxPerUser: 1 << 10,
	}
	if change != nil {
		change(def)
	}
	return errors.Join(def.Validate(), def.Create(filepath.Join(w.root(), "networks.d")))
}

// addr returns an address in the upper half of the subnet: lanyard and host-local lease from the
// lower half.
func (l lan) addr(c *container) netip.Addr {
	a, n := l.gateway.As4(), c.n%(1<<15)
	return netip.AddrFrom4([4]byte{a[0], a[1], byte(128 + n>>8), byte(n)})
}

// at returns an address of the subnet, such as l.at(64, 1) for 10.50.64.1.
func (l lan) at(third, fourth byte) string {
	a := l.gateway.As4()
	return netip.AddrFrom4([4]byte{a[0], a[1], third, fourth}).String()
}
