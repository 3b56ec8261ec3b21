package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
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

// lanNames are the names of all lans, in the order of their subnets.
var lanNames = []string{
	ours, alone, guarded, oursCNI, cni, netavark, oldNetavark, floor, former,
	dhcpLAN(ours), dhcpLAN(cni), dhcpLAN(netavark), docker, dockerAux,
}

// plugIn makes lans, which stay. A subject makes its own when it begins: each link of the host adds
// to what lanyard reads for an attach.
func (w *world) plugIn(names ...string) error {
	for _, name := range names {
		n := slices.Index(lanNames, name)
		l := lan{trunk: fmt.Sprintf("trunk%d", n), gateway: netip.AddrFrom4([4]byte{10, byte(50 + n), 0, 1})}
		l.subnet = netip.PrefixFrom(l.gateway, 16).Masked()
		if err := w.plug(l); err != nil {
			return err
		}
		w.lans[name] = l
	}
	return nil
}

// plugContenders makes the lans of the contenders, and lanyard's networks on its own.
func (w *world) plugContenders() error {
	lanyards := []string{ours, alone, guarded, oursCNI}
	if w.versus != "" {
		lanyards = append(lanyards, former)
	}
	if err := w.plugIn(append(lanyards, cni, netavark, oldNetavark, floor)...); err != nil {
		return err
	}
	for _, name := range lanyards {
		if err := w.define(w.lans[name], nil); err != nil {
			return err
		}
	}
	return nil
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
