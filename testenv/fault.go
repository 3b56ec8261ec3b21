package testenv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// MoveToVLAN moves the station's port to another VLAN. A station that tags its frames itself keeps
// the old tag, and reaches nothing.
func (s *Station) MoveToVLAN(vid uint16) {
	s.lab.tb.Helper()
	s.lab.dropVLAN(s.Port, s.VLAN)
	s.lab.setVLAN(s.Port, vid, !s.nested)
	s.VLAN = vid
}

// SetPort switches the station's port on or off: the station's card loses its carrier, the host's
// does not.
func (s *Station) SetPort(up bool) {
	s.lab.tb.Helper()
	s.lab.setPort(s.Port, up)
}

// SetMAC changes the station's MAC, as after a failover to another machine.
func (s *Station) SetMAC(mac ether.MAC) {
	s.lab.tb.Helper()
	must(s.lab.tb, s.nl.LinkSetHardwareAddr(s.link(s.lab.tb, NIC), mac.Hardware()))
	s.MAC = mac
}

// Impair delays what the station sends, and loses a share of it, from 0 to 100 percent. Zero for
// both removes the impairment. It needs the kernel's sch_netem.
func (s *Station) Impair(delay time.Duration, loss float32) {
	s.lab.tb.Helper()
	link := s.link(s.lab.tb, NIC)
	root := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0),
		Parent: netlink.HANDLE_ROOT}
	netem := netlink.NewNetem(root, netlink.NetemQdiscAttrs{
		Latency: uint32(delay.Microseconds()),
		Loss:    loss,
	})
	if err := s.nl.QdiscReplace(netem); err != nil {
		s.lab.tb.Fatalf("impair %s: %v", s.Name, err)
	}
}

// TakeOffTrunk removes a VLAN from the switch's trunk port.
func (l *Lab) TakeOffTrunk(vid uint16) {
	l.tb.Helper()
	l.dropVLAN(l.port, vid)
}

// PutOnTrunk adds a VLAN to the switch's trunk port, tagged.
func (l *Lab) PutOnTrunk(vid uint16) {
	l.tb.Helper()
	l.setVLAN(l.port, vid, false)
}

// SetNative changes the VLAN of the trunk port's untagged frames; 0 drops them. If the port carried
// the VLAN tagged, its frames leave untagged from now on.
func (l *Lab) SetNative(vid uint16) {
	l.tb.Helper()
	if l.native != 0 {
		l.dropVLAN(l.port, l.native)
	}
	if vid != 0 {
		l.setVLAN(l.port, vid, true)
	}
	l.native = vid
}

// SetHairpin has the trunk port send frames back to the host that they came from, where
// the switch would forward them there: to all, and to another MAC behind that port.
func (l *Lab) SetHairpin(on bool) {
	l.tb.Helper()
	must(l.tb, l.Switch.nl.LinkSetHairpin(l.Switch.link(l.tb, l.port), on))
}

// SetTrunk switches the trunk port on or off: the host's card loses its carrier.
func (l *Lab) SetTrunk(up bool) {
	l.tb.Helper()
	l.setPort(l.port, up)
}

// SetTrunkMTU sets the MTU of the switch's trunk port, not that of the host's card. Linux drops
// packets of more than the MTU and the 4 bytes of a tag there (is_skb_forwardable).
func (l *Lab) SetTrunkMTU(mtu int) {
	l.tb.Helper()
	// br_netfilter would fragment the packets, as a switch does not.
	for _, family := range []string{"iptables", "ip6tables"} {
		if err := l.Switch.Sysctl("net/bridge/bridge-nf-call-"+family, "0"); !errors.Is(err, fs.ErrNotExist) {
			must(l.tb, err)
		}
	}
	must(l.tb, l.Switch.nl.LinkSetMTU(l.Switch.link(l.tb, l.port), mtu))
}

// Directions through a port, as the switch sees them: In for frames from the machine behind it, Out
// for frames to it.
const (
	In  = "ingress"
	Out = "egress"
)

// Filter adds tc filters to the switch's port, in order. Each filter is the part after "tc filter
// add … protocol all", such as "matchall action drop". They stay until undo is called.
func (s *Station) Filter(direction string, filters ...string) (undo func()) {
	s.lab.tb.Helper()
	return s.lab.filter(s.Port, direction, filters)
}

// FilterTrunk adds tc filters to the port of the host's trunk, as [Station.Filter] does.
func (l *Lab) FilterTrunk(direction string, filters ...string) (undo func()) {
	l.tb.Helper()
	return l.filter(l.port, direction, filters)
}

// FilterLink adds tc filters to a link of the host or of a station; directions are as that machine
// sees them.
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
	key := n.Name + " " + port // both directions of a port share a qdisc
	var batch []string
	l.filtered[key]++
	if l.filtered[key] == 1 {
		batch = append(batch, "qdisc add dev "+port+" clsact")
	}
	for i, f := range filters {
		batch = append(batch, fmt.Sprintf("filter add dev %s %s prio %d protocol all %s", port, direction, i+1, f))
	}
	must(l.tb, n.TC(batch...))
	return func() {
		l.tb.Helper()
		l.filtered[key]--
		if l.filtered[key] > 0 {
			must(l.tb, n.TC("filter del dev "+port+" "+direction))
			return
		}
		must(l.tb, n.TC("qdisc del dev "+port+" clsact"))
	}
}

// TC runs several tc(8) commands inside the namespace, with one process.
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

// Listening puts the trunk's port into the spanning tree state "listening", in which a switch
// forwards nothing, until undo is called. Any goroutine may call undo.
func (l *Lab) Listening() (undo func() error) {
	l.tb.Helper()
	port := l.Switch.link(l.tb, l.port).Attrs().Index
	must(l.tb, l.Switch.setSTP(port, 1)) // BR_STATE_LISTENING (linux/if_bridge.h)
	return func() error { return l.Switch.setSTP(port, 3) }
}

// setSTP sets the spanning tree state of a bridge port, given by its ifindex. It is faster than
// running a program.
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

// Foreign attaches a program before all others on a link, as another project would: by TCX where
// the kernel has it, otherwise in clsact. The program is called "foreign" and always returns answer
// (from include/uapi/linux/pkt_cls.h; -1 continues with the next program). It stays until undo is
// called.
func (l *Lab) Foreign(n *Namespace, nic, direction string, answer int32) (undo func()) {
	l.tb.Helper()
	return l.attachFirst(n, nic, direction, "foreign", asm.Instructions{asm.Mov.Imm(asm.R0, answer), asm.Return()})
}

// DropLast attaches a program after all others on a link that drops every frame, until undo is called:
// programs before it see the frames pass.
func (l *Lab) DropLast(n *Namespace, nic, direction string) (undo func()) {
	l.tb.Helper()
	drop := asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()} // TC_ACT_SHOT
	return l.attach(n, nic, direction, "drop_last", drop, link.Tail(), 0xfff0)
}

// LoseACKs drops the DHCP acknowledgements that a server on the station sends, until undo is called. Their
// first option is the type, as most servers have it.
func (s *Station) LoseACKs() (undo func()) {
	s.lab.tb.Helper()
	const options, ack = 14 + 20 + 8 + 240, 53<<24 | 1<<16 | 5<<8 // of a frame; without the byte after the type
	return s.lab.attachFirst(s.Namespace, NIC, Out, "lose_acks", asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.LoadAbs(options, asm.Word), // passes a frame that is shorter
		asm.RSh.Imm(asm.R0, 8), asm.JNE.Imm(asm.R0, ack>>8, "pass"),
		asm.Mov.Imm(asm.R0, 2), asm.Return(), // TC_ACT_SHOT
		asm.Mov.Imm(asm.R0, -1).WithSymbol("pass"), asm.Return(),
	})
}

// DropTo drops the frames to a MAC that a link receives, until undo is called: a port with port security
// forwards the frames of all other stations.
func (l *Lab) DropTo(n *Namespace, nic, direction string, mac ether.MAC) (undo func()) {
	l.tb.Helper()
	return l.attachFirst(n, nic, direction, "drop_to", asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(0, asm.Word), asm.JNE.Imm32(asm.R0, int32(binary.BigEndian.Uint32(mac[:4])), "pass"),
		asm.LoadAbs(4, asm.Half), asm.JNE.Imm(asm.R0, int32(binary.BigEndian.Uint16(mac[4:])), "pass"),
		asm.Mov.Imm(asm.R0, 2), asm.Return(), // TC_ACT_SHOT
		asm.Mov.Imm(asm.R0, -1).WithSymbol("pass"), asm.Return(),
	})
}

// TagPriority has all frames of the station leave with a tag that has a priority and no VLAN (VID 0), as some
// hypervisors' cards do, until undo is called.
func (s *Station) TagPriority() (undo func()) {
	s.lab.tb.Helper()
	return s.lab.attachFirst(s.Namespace, NIC, Out, "tag_priority", asm.Instructions{
		asm.Mov.Imm(asm.R2, 0x0081), // 802.1Q, in network order
		asm.Mov.Imm(asm.R3, 5<<13), asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	})
}

// attachFirst attaches a program before all others on a link, until undo is called.
func (l *Lab) attachFirst(n *Namespace, nic, direction, name string, does asm.Instructions) (undo func()) {
	l.tb.Helper()
	return l.attach(n, nic, direction, name, does, link.Head(), 1)
}

// attach attaches a program at a place in the chain of a link: by TCX at an anchor, or where the kernel has
// no TCX, in clsact with a priority.
func (l *Lab) attach(
	n *Namespace, nic, direction, name string, does asm.Instructions, place link.Anchor, priority uint16,
) (undo func()) {
	l.tb.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "GPL", Instructions: does})
	must(l.tb, err)
	at, err := n.Netlink().LinkByName(nic)
	must(l.tb, err)
	kind, parent := ebpf.AttachTCXEgress, uint32(netlink.HANDLE_MIN_EGRESS)
	if direction == In {
		kind, parent = ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS
	}
	var tcx link.Link
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: at.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	added := false
	filter := &netlink.BpfFilter{Fd: p.FD(), Name: name, DirectAction: true, FilterAttrs: netlink.FilterAttrs{
		LinkIndex: at.Attrs().Index, Parent: parent, Handle: 0xf0, Priority: priority, Protocol: unix.ETH_P_ALL,
	}}
	must(l.tb, n.Do(func() (err error) {
		tcx, err = link.AttachTCX(link.TCXOptions{Interface: at.Attrs().Index, Program: p, Attach: kind, Anchor: place})
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return err
		}
		err = netlink.QdiscAdd(qdisc)
		added = err == nil
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return netlink.FilterAdd(filter)
	}))
	return func() {
		l.tb.Helper()
		if tcx != nil {
			must(l.tb, errors.Join(tcx.Close(), p.Close()))
			return
		}
		must(l.tb, errors.Join(n.Do(func() error {
			if added {
				return netlink.QdiscDel(qdisc)
			}
			return netlink.FilterDel(filter)
		}), p.Close()))
	}
}
