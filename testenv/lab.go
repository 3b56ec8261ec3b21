// Package testenv makes small networks for tests: a switch, a host with a trunk to it, and stations
// such as gateways, each in a network namespace of its own, connected by veth pairs. Frames really
// cross a bridge, and ARP and neighbour discovery are the kernel's.
//
//	lab := testenv.NewLab(t, testenv.Config{VLANs: []uint16{50, 60}})
//	gw := lab.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
//	c := testenv.NewContainer(t)
//	lab.Host.Exec("lanyard-hook", …)   // in the host's namespace, with c.Pid
//	gw.MoveToVLAN(60)                  // a real fault
//
// When the test ends, everything is removed. Anything that keeps a namespace alive (a process, a
// descriptor, a thread left inside) fails the test. Labs need root. A lab with VLANs needs bridge
// VLAN filtering and 802.1Q, which the virtual machine of testenv/vm has; a lab without VLANs does
// not.
//
// The package does not judge what a program under test does with a lab.
package testenv

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// Config describes a lab. The zero value is a switch without VLANs.
type Config struct {
	// Trunk is the name of the host's network card; "eth9" if empty.
	Trunk string
	// VLANs are the VLANs that the trunk carries tagged. If there are any, the switch filters by
	// VLAN, and untagged frames are in VLAN 1.
	VLANs []uint16
}

// nativeVLAN is the VLAN in which a filtering switch puts untagged frames.
const nativeVLAN = 1

// Names of the switch's parts in its own namespace.
const bridgeName = "switch"

// A Lab is a switch and everything connected to it. Its methods take effect before they return, and
// fail the test if the kernel refuses.
type Lab struct {
	Host   *Namespace // the namespace of the containers' parents
	Switch *Namespace // the bridge, and a port per peer
	Trunk  string     // the host's network card, in Host

	tb       testing.TB
	port     string // the switch's port to Host
	vlans    []uint16
	native   uint16
	ports    *int           // number of ports added after the first, for all hosts
	filtered map[string]int // number of tc filter sets, by namespace and link
}

// NewLab makes a switch, and a host on its trunk port.
func NewLab(tb testing.TB, c Config) *Lab {
	tb.Helper()
	shareMachine(tb)
	if c.Trunk == "" {
		c.Trunk = "eth9"
	}
	l := &Lab{
		Switch:   NewNamespace(tb, "switch"),
		Trunk:    c.Trunk,
		tb:       tb,
		vlans:    slices.Clone(c.VLANs),
		ports:    new(int),
		filtered: map[string]int{},
	}
	l.addBridge()
	l.addHost("host", "trunk")
	return l
}

// AddHost adds another host to the switch, on a trunk port with the same VLANs. It
// returns the same lab with that host in place of the first.
func (l *Lab) AddHost() *Lab {
	l.tb.Helper()
	other := *l
	*l.ports++
	other.addHost(fmt.Sprintf("host %d", *l.ports), fmt.Sprintf("trunk%d", *l.ports))
	return &other
}

func (l *Lab) addHost(name, port string) {
	l.tb.Helper()
	l.Host, l.port, l.native = NewNamespace(l.tb, name), port, nativeVLAN
	l.addTrunk(port, l.Trunk)
}

// AddUplink gives the host another network card, on a trunk port of its own.
func (l *Lab) AddUplink(nic string) {
	l.tb.Helper()
	*l.ports++
	l.addTrunk(fmt.Sprintf("trunk%d", *l.ports), nic)
}

// Unplug removes the host's network card and its port of the switch, as a hot-plug does. The kernel
// deletes all links on the card, in every namespace.
func (l *Lab) Unplug() {
	l.tb.Helper()
	must(l.tb, l.Host.nl.LinkDel(l.Host.link(l.tb, l.Trunk)))
}

// Replug adds the card again, as another link with the same name.
func (l *Lab) Replug() {
	l.tb.Helper()
	l.addTrunk(l.port, l.Trunk)
}

func (l *Lab) addTrunk(port, nic string) {
	l.tb.Helper()
	l.plug(port, l.Host, nic, nil)
	if l.filters() {
		l.setVLAN(port, nativeVLAN, true)
		for _, vid := range l.vlans {
			l.setVLAN(port, vid, false)
		}
	}
	l.waitPort(port)
}

func (l *Lab) filters() bool { return len(l.vlans) > 0 }

func (l *Lab) addBridge() {
	l.tb.Helper()
	// A switch has no addresses. Without IPv6 it also sends no frames of its own.
	must(l.tb, l.Switch.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	no := false
	br := &netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: bridgeName},
		MulticastSnooping: &no, // there is no querier: neighbour discovery must be flooded
	}
	if l.filters() {
		yes, none := true, uint16(0)
		br.VlanFiltering = &yes
		br.VlanDefaultPVID = &none
	}
	if err := l.Switch.nl.LinkAdd(br); err != nil {
		l.tb.Fatalf("add the switch's bridge (VLANs need the kernel's BRIDGE_VLAN_FILTERING): %v", err)
	}
	must(l.tb, l.Switch.nl.LinkSetUp(br))
}

// plug connects a new port of the switch to a new network card in a namespace.
func (l *Lab) plug(port string, in *Namespace, nic string, mac []byte) {
	l.tb.Helper()
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: port},
		PeerName:         nic,
		PeerNamespace:    netlink.NsFd(in.file.Fd()),
		PeerHardwareAddr: mac,
	}
	br := l.Switch.link(l.tb, bridgeName)
	if err := l.Switch.nl.LinkAdd(veth); err != nil {
		l.tb.Fatalf("add port %q: %v", port, err)
	}
	p := l.Switch.link(l.tb, port)
	must(l.tb, l.Switch.nl.LinkSetMaster(p, br))
	must(l.tb, l.Switch.nl.LinkSetUp(p))
	must(l.tb, in.nl.LinkSetUp(in.link(l.tb, nic)))
}

// setVLAN adds a port to a VLAN: untagged as for an access port, or tagged.
func (l *Lab) setVLAN(port string, vid uint16, untagged bool) {
	l.tb.Helper()
	p := l.Switch.link(l.tb, port)
	if err := l.Switch.nl.BridgeVlanAdd(p, vid, untagged, untagged, false, true); err != nil {
		l.tb.Fatalf("add port %q to VLAN %d: %v", port, vid, err)
	}
}

func (l *Lab) dropVLAN(port string, vid uint16) {
	l.tb.Helper()
	p := l.Switch.link(l.tb, port)
	if err := l.Switch.nl.BridgeVlanDel(p, vid, false, false, false, true); err != nil {
		l.tb.Fatalf("remove port %q from VLAN %d: %v", port, vid, err)
	}
}

// WaitCarrier waits until the trunk has a carrier and the switch forwards.
func (l *Lab) WaitCarrier() {
	l.tb.Helper()
	l.waitPort(l.port)
}

// waitPort waits until a port of the switch, and so the card behind it, is up.
func (l *Lab) waitPort(port string) {
	l.tb.Helper()
	Eventually(l.tb, "carrier on port "+port, func() error {
		p, err := l.Switch.nl.LinkByName(port)
		if err != nil {
			return err
		}
		if s := p.Attrs().OperState; s != netlink.OperUp {
			return fmt.Errorf("port is %s", s)
		}
		return nil
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
