package testenv

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// NIC is the name of a station's network card.
const NIC = "eth0"

// A Station is a machine on an access port of the switch.
type Station struct {
	*Namespace
	Port string    // in the switch
	MAC  ether.MAC // of NIC
	VLAN uint16    // of the port; 0 if the switch does not filter by VLAN
	Card string    // the link that has the addresses: NIC, or a VLAN on it

	lab    *Lab
	nested bool // the station tags its frames itself
}

// AddGateway adds a station with the given addresses, each with its prefix length. VLAN 0 is the
// untagged network.
func (l *Lab) AddGateway(vlan uint16, prefixes ...string) *Station {
	l.tb.Helper()
	return l.addStation("gateway", vlan, prefixes)
}

// AddClaimant adds a station that uses addresses which are meant for another: a claimant.
func (l *Lab) AddClaimant(vlan uint16, prefixes ...string) *Station {
	l.tb.Helper()
	return l.addStation("rival", vlan, prefixes)
}

func (l *Lab) addStation(kind string, vlan uint16, prefixes []string) *Station {
	l.tb.Helper()
	*l.ports++
	if l.filters() && vlan == 0 {
		vlan = nativeVLAN
	}
	s := &Station{
		Namespace: NewNamespace(l.tb, fmt.Sprintf("%s %d", kind, *l.ports)),
		Port:      fmt.Sprintf("port%d", *l.ports),
		// Locally administered, and readable in a trace: VLAN and number.
		MAC:  ether.MAC{0x0a, 0, byte(vlan >> 8), byte(vlan), byte(*l.ports >> 8), byte(*l.ports)},
		VLAN: vlan,
		Card: NIC,
		lab:  l,
	}
	// A station's addresses are usable at once, as if it had been up for a long time.
	must(l.tb, s.Sysctl("net/ipv6/conf/default/accept_dad", "0"))
	// It sends nothing unless it is asked, so that a VLAN can be silent.
	must(l.tb, s.Sysctl("net/ipv6/conf/default/router_solicitations", "0"))
	l.plug(s.Port, s.Namespace, NIC, s.MAC.Hardware())
	if l.filters() {
		l.setVLAN(s.Port, vlan, true)
	}
	for _, p := range prefixes {
		s.AddAddr(p)
	}
	l.waitPort(s.Port)
	return s
}

// AddAddr adds an address to the station, usable at once.
func (s *Station) AddAddr(prefix string) {
	s.lab.tb.Helper()
	a := s.addr(prefix)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := s.nl.AddrAdd(s.link(s.lab.tb, s.Card), a); err != nil {
		s.lab.tb.Fatalf("add %s to %s: %v", prefix, s.Name, err)
	}
}

// RemoveAddr removes an address from the station, which then no longer answers for it.
func (s *Station) RemoveAddr(prefix string) {
	s.lab.tb.Helper()
	if err := s.nl.AddrDel(s.link(s.lab.tb, s.Card), s.addr(prefix)); err != nil {
		s.lab.tb.Fatalf("remove %s from %s: %v", prefix, s.Name, err)
	}
}

// Nest makes the station tag its frames twice, as QinQ does: with the VLAN of its port, and with an
// inner one. Addresses that are added later are in the inner VLAN.
func (s *Station) Nest(inner uint16) {
	s.lab.tb.Helper()
	s.nested = true
	s.lab.dropVLAN(s.Port, s.VLAN)
	s.lab.setVLAN(s.Port, s.VLAN, false)
	s.stack(netlink.VLAN_PROTOCOL_8021Q, s.VLAN)
	s.stack(netlink.VLAN_PROTOCOL_8021Q, inner)
}

// NestAD makes the station tag its frames twice, with 802.1ad outside. The switch does not know
// that kind of tag: it treats the frames as untagged ones of the port's VLAN.
func (s *Station) NestAD(outer, inner uint16) {
	s.lab.tb.Helper()
	// Linux answers on every card for the addresses of all cards, so also on the card without tags,
	// which is another network.
	must(s.lab.tb, s.Sysctl("net/ipv4/conf/all/arp_ignore", "1"))
	s.stack(netlink.VLAN_PROTOCOL_8021AD, outer)
	s.stack(netlink.VLAN_PROTOCOL_8021Q, inner)
}

// stack makes a VLAN on the current card. Addresses that are added later are on that VLAN.
func (s *Station) stack(proto netlink.VlanProtocol, vid uint16) {
	s.lab.tb.Helper()
	below := s.link(s.lab.tb, s.Card)
	s.Card = fmt.Sprintf("%s.%d", s.Card, vid)
	must(s.lab.tb, s.nl.LinkAdd(&netlink.Vlan{
		LinkAttrs: netlink.LinkAttrs{Name: s.Card, ParentIndex: below.Attrs().Index},
		VlanId:    int(vid), VlanProtocol: proto,
	}))
	must(s.lab.tb, s.nl.LinkSetUp(s.link(s.lab.tb, s.Card)))
}

func (s *Station) addr(prefix string) *netlink.Addr {
	s.lab.tb.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(s.lab.tb, err)
	return a
}
