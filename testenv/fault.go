package testenv

import (
	"net"
	"time"

	"github.com/vishvananda/netlink"
)

// MoveToVLAN makes the station's port an access port of another VLAN.
func (s *Station) MoveToVLAN(vid uint16) {
	s.lab.tb.Helper()
	s.lab.dropVLAN(s.Port, s.VLAN)
	s.lab.setVLAN(s.Port, vid, true)
	s.VLAN = vid
}

// SetPort switches the station's port off or on: its card loses its carrier,
// the host's does not.
func (s *Station) SetPort(up bool) {
	s.lab.tb.Helper()
	s.lab.setPort(s.Port, up)
}

// SetMAC changes the station's MAC, as a failover to another machine does.
func (s *Station) SetMAC(mac net.HardwareAddr) {
	s.lab.tb.Helper()
	must(s.lab.tb, s.nl.LinkSetHardwareAddr(s.link(s.lab.tb, NIC), mac))
	s.MAC = mac
}

// Impair holds up what the station sends and loses a share of it, from 0 to
// 100 percent. Zero for both takes it away. It needs the kernel's sch_netem.
func (s *Station) Impair(delay time.Duration, loss float32) {
	s.lab.tb.Helper()
	link := s.link(s.lab.tb, NIC)
	root := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	netem := netlink.NewNetem(root, netlink.NetemQdiscAttrs{
		Latency: uint32(delay.Microseconds()),
		Loss:    loss,
	})
	if err := s.nl.QdiscReplace(netem); err != nil {
		s.lab.tb.Fatalf("impair %s: %v", s.Name, err)
	}
}

// TakeOffTrunk makes the switch's trunk port carry a VLAN no more.
func (l *Lab) TakeOffTrunk(vid uint16) {
	l.tb.Helper()
	l.dropVLAN(trunkPort, vid)
}

// PutOnTrunk makes the switch's trunk port carry a VLAN, tagged.
func (l *Lab) PutOnTrunk(vid uint16) {
	l.tb.Helper()
	l.setVLAN(trunkPort, vid, false)
}

// SetNative changes the VLAN of the trunk port's frames without a tag; 0 drops
// them. A VLAN that the port carried tagged leaves without a tag from now on.
func (l *Lab) SetNative(vid uint16) {
	l.tb.Helper()
	if l.native != 0 {
		l.dropVLAN(trunkPort, l.native)
	}
	if vid != 0 {
		l.setVLAN(trunkPort, vid, true)
	}
	l.native = vid
}

// SetTrunk switches the trunk port off or on: the host's card loses its carrier.
func (l *Lab) SetTrunk(up bool) {
	l.tb.Helper()
	l.setPort(trunkPort, up)
}

func (l *Lab) setPort(port string, up bool) {
	l.tb.Helper()
	p := l.Switch.link(l.tb, port)
	if !up {
		must(l.tb, l.Switch.nl.LinkSetDown(p))
		return
	}
	must(l.tb, l.Switch.nl.LinkSetUp(p))
	l.waitPort(port)
}
