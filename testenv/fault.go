package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// MoveToVLAN takes the station's port to another VLAN. One that tags its frames
// itself goes on with the old tag, and gets nowhere.
func (s *Station) MoveToVLAN(vid uint16) {
	s.lab.tb.Helper()
	s.lab.dropVLAN(s.Port, s.VLAN)
	s.lab.setVLAN(s.Port, vid, !s.nested)
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

// Directions through a port, as the switch sees them: what comes in from the
// machine behind it, and what goes out to it.
const (
	In  = "ingress"
	Out = "egress"
)

// Filter has the switch's port judge frames by tc filters, in order, each being
// what follows "tc filter add … protocol all" such as "matchall action drop". They
// are in place until undo is called.
func (s *Station) Filter(direction string, filters ...string) (undo func()) {
	s.lab.tb.Helper()
	return s.lab.filter(s.Port, direction, filters)
}

// FilterTrunk does for the host's port what [Station.Filter] does.
func (l *Lab) FilterTrunk(direction string, filters ...string) (undo func()) {
	l.tb.Helper()
	return l.filter(trunkPort, direction, filters)
}

// FilterLink does the same for a link of the host's or of a station's, seen from
// there.
func (l *Lab) FilterLink(n *Namespace, link, direction string, filters ...string) (undo func()) {
	l.tb.Helper()
	return l.filterIn(n, link, direction, filters)
}

func (l *Lab) filter(port, direction string, filters []string) (undo func()) {
	l.tb.Helper()
	return l.filterIn(l.Switch, port, direction, filters)
}

func (l *Lab) filterIn(n *Namespace, port, direction string, filters []string) (undo func()) {
	l.tb.Helper()
	key := n.Name + " " + port // directions of one port share a qdisc
	var batch []string
	if l.filtered[key]++; l.filtered[key] == 1 {
		batch = append(batch, "qdisc add dev "+port+" clsact")
	}
	for i, f := range filters {
		batch = append(batch, fmt.Sprintf("filter add dev %s %s prio %d protocol all %s", port, direction, i+1, f))
	}
	must(l.tb, n.TC(batch...))
	return func() {
		l.tb.Helper()
		if l.filtered[key]--; l.filtered[key] > 0 {
			must(l.tb, n.TC("filter del dev "+port+" "+direction))
			return
		}
		must(l.tb, n.TC("qdisc del dev "+port+" clsact"))
	}
}

// TC runs several commands of tc(8) inside the namespace by one program.
func (n *Namespace) TC(commands ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "tc", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Run(cmd); err != nil {
		return fmt.Errorf("run tc %q in namespace %q: %w: %s", commands, n.Name, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// Listening puts the trunk's port into the state in which a switch that speaks
// the spanning tree protocol forwards nothing, until undo is called, from
// whichever goroutine.
func (l *Lab) Listening() (undo func() error) {
	l.tb.Helper()
	port := l.Switch.link(l.tb, trunkPort).Attrs().Index
	must(l.tb, l.Switch.setSTP(port, 1)) // BR_STATE_LISTENING (linux/if_bridge.h)
	return func() error { return l.Switch.setSTP(port, 3) }
}

// setSTP sets the state of a bridge's port, quicker than a program would.
func (n *Namespace) setSTP(port int, state byte) error {
	return n.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
		msg.Index = int32(port)
		req.AddData(msg)
		info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
		info.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{state})
		req.AddData(info)
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
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

// Foreign puts a program in front of all others on a link, by TCX where the kernel has
// it and else in clsact, as another project's would come: it gives one answer (from
// include/uapi/linux/pkt_cls.h, -1 for the next in line), and is called "foreign". It
// is in place until undo is called.
func (l *Lab) Foreign(n *Namespace, nic, direction string, answer int32) (undo func()) {
	l.tb.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "foreign", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, answer), asm.Return(),
	}})
	must(l.tb, err)
	at, err := n.Netlink().LinkByName(nic)
	must(l.tb, err)
	kind, parent := ebpf.AttachTCXEgress, uint32(netlink.HANDLE_MIN_EGRESS)
	if direction == In {
		kind, parent = ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS
	}
	var tcx link.Link
	filter := &netlink.BpfFilter{Fd: p.FD(), Name: "foreign", DirectAction: true, FilterAttrs: netlink.FilterAttrs{
		LinkIndex: at.Attrs().Index, Parent: parent, Handle: 0xf0, Priority: 1, Protocol: unix.ETH_P_ALL,
	}}
	must(l.tb, n.Do(func() (err error) {
		tcx, err = link.AttachTCX(link.TCXOptions{Interface: at.Attrs().Index, Program: p, Attach: kind, Anchor: link.Head()})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return netlink.FilterAdd(filter)
		}
		return err
	}))
	return func() {
		l.tb.Helper()
		if tcx != nil {
			must(l.tb, errors.Join(tcx.Close(), p.Close()))
			return
		}
		must(l.tb, errors.Join(n.Do(func() error { return netlink.FilterDel(filter) }), p.Close()))
	}
}
