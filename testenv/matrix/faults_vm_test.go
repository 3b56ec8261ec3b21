//go:build vm

package matrix

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// A fault is one way to break a LAN, or to make a healthy LAN look broken, and the expected
// verdict.
type fault struct {
	name       string
	only       func(cell) bool // cells in which the fault is possible; nil: all
	make       func(*bench, cell) (undo func())
	want       func(*bench, cell) want
	announce   func(*bench, cell) // has stations send frames after the fault is made; may be nil
	deadline   time.Duration
	window     time.Duration // conflict window; 0 adapts to the LAN's speed
	allModes   bool          // tested in every macvlan mode
	noBPF      bool          // BPF is not available
	newNetwork bool          // needs a new network: the trunk must not have heard anything before
	mac        ether.MAC     // requested by the container; zero: the default
	afterStart bool          // made after the attach: the verdict is a later verification's
	siblings   bool          // two other containers are on the network
	from       source        // of the container's address
}

func noUndo() {}

func announcePeer(b *bench, c cell) { b.announce(c.segment.peer) }

// noAnswer is the evidence of all faults that show only in the missing answer.
func noAnswer(c cell) *seen {
	s := &seen{asked: &c.segment.tags}
	if isIPv6(c) {
		s.routers = []ether.MAC{}
	}
	return s
}

func tagged(c cell) bool   { return len(c.segment.tags) > 0 }
func ownMAC(c cell) bool   { return c.mode != network.ModePassthru && c.mode != network.ModeL2 }
func untagged(c cell) bool { return !tagged(c) }
func isIPv6(c cell) bool   { return c.family.name == "IPv6" }

// outer returns the VLAN of the segment in the trunk's histogram, 0 for none.
func (p *segment) outer() uint16 {
	if len(p.tags) == 0 {
		return 0
	}
	return p.tags[0].VID
}

func (p *segment) gatewayMAC() ether.MAC { return p.gateway.MAC }

// faults contains all faults, in the order of the verdict table.
var faults = func() (all []*fault) {
	for _, list := range [][]*fault{
		healthy, localFaults, silentFaults, tagFaults, claimFaults, hostFaults, addressFaults,
	} {
		all = append(all, list...)
	}
	return all
}()

// healthyWant is the expected result in a healthy segment.
func healthyWant(c cell, words ...string) want {
	return want{verify.OK, words, &seen{asked: &c.segment.tags, reply: &c.segment.tags,
		heard: []uint16{c.segment.outer()}}}
}

// localFaults are on the host itself.
var localFaults = []*fault{
	{
		name: "trunk's port down", allModes: true,
		make: trunkDown,
		want: func(b *bench, c cell) want {
			return want{verify.ParentDown, []string{b.Trunk, "carrier"}, &seen{}}
		},
	},
	{
		name: "a filter on the parent drops frames", only: tagged,
		make: dropOnParent,
		want: func(b *bench, c cell) want {
			return want{verify.NotSent, []string{c.segment.parent, "tc filter"}, &seen{}}
		},
	},
	{
		name: "another program that runs first drops frames",
		make: dropAhead,
		want: func(_ *bench, c cell) want {
			culprit := "tc filter"
			if hasTCX() && !c.legacy {
				culprit = `TCX program "drop"`
			}
			return want{verify.NotSent, []string{c.segment.parent, culprit}, &seen{}}
		},
	},
	{
		name: "a filter sends frames out without a tag", only: tagged,
		make: func(b *bench, c cell) func() {
			return b.FilterLink(b.Host, c.segment.parent, testenv.Out, "matchall action mirred egress redirect dev "+b.Trunk)
		},
		want: wrongTag(verify.Untagged, nil),
	},
	{
		name: "a filter sends frames out of another VLAN", allModes: true, only: tagged,
		make: sendOutOfOther,
		want: wrongTag(verify.WrongVLAN, tags(otherVLAN)),
	},
	{
		name: "a filter pushes a tag too many",
		make: func(b *bench, c cell) func() {
			return b.FilterLink(b.Host, c.segment.parent, testenv.Out, "matchall action vlan push id 99")
		},
		only: tagged,
		want: func(b *bench, c cell) want {
			return wrongTag(verify.UnexpectedTag, append(append(ether.Tags{}, c.segment.tags...), tags(99)...))(b, c)
		},
	},
	{
		name: "no BPF", noBPF: true,
		make: func(*bench, cell) func() { return noUndo },
		want: func(*bench, cell) want { return want{verify.Unobserved, []string{"tags were not watched"}, nil} },
	},
	{
		name: "no BPF, gateway has no address", noBPF: true,
		make: removeGatewayAddr,
		want: func(*bench, cell) want { return want{verify.GatewaySilent, []string{"tags were not watched"}, nil} },
	},
}

func trunkDown(b *bench, _ cell) (undo func()) {
	b.SetTrunk(false)
	testenv.Eventually(b.tb, "the trunk to lose its carrier", func() error {
		l, err := b.Host.Netlink().LinkByName(b.Trunk)
		if err == nil && l.Attrs().OperState == netlink.OperUp {
			err = errors.New("it is up")
		}
		return err
	})
	return func() { b.SetTrunk(true) }
}

func dropOnParent(b *bench, c cell) (undo func()) {
	return b.FilterLink(b.Host, c.segment.parent, testenv.Out, "matchall action drop")
}

func sendOutOfOther(b *bench, c cell) (undo func()) {
	b.ip("link", "add", "link", b.Trunk, "name", "other0", "up", "type", "vlan", "id", fmt.Sprint(otherVLAN))
	end := b.FilterLink(b.Host, c.segment.parent, testenv.Out, "matchall action mirred egress redirect dev other0")
	return func() { end(); b.ip("link", "del", "other0") }
}

// dropAhead attaches a program of another owner that drops frames on the trunk before Lanyard's
// program sees them: with TCX if that is how Lanyard's is attached, otherwise as a later clsact
// filter with the same priority, which the kernel tries first (net/sched/cls_bpf.c,
// cls_bpf_change).
func dropAhead(b *bench, c cell) (undo func()) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "drop", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // TC_ACT_SHOT
	})
	must(b.tb, err)
	card, err := b.Host.Netlink().LinkByName(b.Trunk)
	must(b.tb, err)
	index := card.Attrs().Index
	if hasTCX() && !c.legacy {
		var l link.Link
		must(b.tb, b.Host.Do(func() (err error) {
			l, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: ebpf.AttachTCXEgress,
				Anchor: link.Head()})
			return err
		}))
		return func() { must(b.tb, errors.Join(l.Close(), prog.Close())) }
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 0xbad, Priority: 1,
			Protocol: unix.ETH_P_ALL},
		Fd: prog.FD(), Name: "drop", DirectAction: true,
	}
	must(b.tb, b.Host.Netlink().FilterAdd(filter))
	return func() { must(b.tb, errors.Join(b.Host.Netlink().FilterDel(filter), prog.Close())) }
}

// wrongTag is the expected result for frames that leave the trunk with wrong tags. They are not
// dropped if the MAC is the parent's own.
func wrongTag(code verify.Code, got ether.Tags) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		return want{code, []string{"as " + got.String(), "not " + c.segment.tags.String()},
			&seen{asked: &got, dropped: ownMAC(c)}}
	}
}

// takeOffTrunk takes the cell's VLAN off the host's port.
func takeOffTrunk(b *bench, c cell) func() {
	if c.segment.vid == untaggedVLAN {
		b.SetNative(0)
		return func() { b.SetNative(untaggedVLAN) }
	}
	b.TakeOffTrunk(c.segment.vid)
	return func() { b.PutOnTrunk(c.segment.vid) }
}

func announceOther(b *bench, _ cell) { b.announce(b.otherVLANStation) }

// moveGateway moves the gateway's port to another VLAN.
func moveGateway(_ *bench, c cell) (undo func()) {
	c.segment.gateway.MoveToVLAN(otherVLAN)
	return func() { c.segment.gateway.MoveToVLAN(c.segment.vid) }
}

func removeGatewayAddr(_ *bench, c cell) func() {
	c.segment.gateway.RemoveAddr(c.family.gateway)
	return func() { c.segment.gateway.AddAddr(c.family.gateway) }
}

// silentFaults leave the gateway without an answer.
var silentFaults = []*fault{
	{
		name: "gateway has no address, VLAN alive", allModes: true,
		make:     removeGatewayAddr,
		announce: announcePeer,
		want:     gatewaySilent,
	},
	{
		name: "gateway has another address than it should, and advertises itself", only: isIPv6,
		make: func(b *bench, c cell) func() {
			undo, mac := removeGatewayAddr(b, c), c.segment.gatewayMAC()
			r := c.segment.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr.IsValid() {
					return nil
				}
				return []testenv.Reply{{MAC: mac}}
			})
			return func() { r.Stop(); undo() }
		},
		want: func(b *bench, c cell) want {
			w := gatewaySilent(b, c)
			w.words = append(w.words[:1], "router "+c.segment.gatewayMAC().LinkLocal().String(), c.segment.gatewayMAC().String())
			w.seen.routers = []ether.MAC{c.segment.gatewayMAC()}
			return w
		},
	},
	{
		name: "gateway's port down, VLAN alive",
		make: func(b *bench, c cell) func() {
			c.segment.gateway.SetPort(false)
			return func() {
				c.segment.gateway.SetPort(true)
				b.restoreAddrs(c.segment.gateway)
			}
		},
		announce: announcePeer,
		want:     gatewaySilent,
	},
	{
		name: "gateway's port in another VLAN", newNetwork: true,
		make: moveGateway,
		want: vlanSilent("nothing else was heard"),
	},
	{
		name: "VLAN not on the trunk, another alive", allModes: true, newNetwork: true,
		make:     takeOffTrunk,
		announce: announceOther,
		want:     vlanSilent("heard: VLAN 60", otherVLAN),
	},
	{
		name: "nothing reaches the host", newNetwork: true,
		make: func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.Out, "matchall action drop") },
		want: vlanSilent("nothing else was heard"),
	},
	{
		name:     "nothing leaves the host's port, VLAN alive",
		make:     func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.In, "matchall action drop") },
		announce: announcePeer,
		want:     gatewaySilent,
	},
	{
		name: "port security: only the parent's MAC in", allModes: true, only: ownMAC,
		make: func(b *bench, _ cell) func() {
			return b.FilterTrunk(testenv.In, "flower src_mac "+b.parent.String()+" action pass", "matchall action drop")
		},
		want: func(b *bench, c cell) want {
			s := noAnswer(c)
			return want{verify.MACFiltered, []string{c.segment.gatewayMAC().String(), "port security", c.segment.parent}, s}
		},
	},
	{
		name: "hypervisor: only the parent's MAC out", allModes: true, only: ownMAC,
		make: func(b *bench, _ cell) func() {
			return b.FilterTrunk(testenv.Out,
				"flower dst_mac "+b.parent.String()+" action pass",
				"flower dst_mac 01:00:00:00:00:00/01:00:00:00:00:00 action pass",
				"matchall action drop")
		},
		want: func(b *bench, c cell) want {
			s := noAnswer(c)
			if isIPv6(c) { // answers to :: go to all nodes, and arrive
				s.reply, s.routers = &c.segment.tags, nil
			}
			return want{verify.MACFiltered, []string{c.segment.gatewayMAC().String(), "promiscuous"}, s}
		},
	},
}

// restoreAddrs adds a station's IPv6 addresses again, which the kernel removes from a link that
// goes down.
func (b *bench) restoreAddrs(s *testenv.Station) {
	b.tb.Helper()
	for _, f := range families {
		a, err := netlink.ParseAddr(f.gateway)
		must(b.tb, err)
		have, err := s.Netlink().LinkByName(s.Card)
		must(b.tb, err)
		list, err := s.Netlink().AddrList(have, netlink.FAMILY_ALL)
		must(b.tb, err)
		found := false
		for _, h := range list {
			found = found || h.Equal(*a)
		}
		if !found {
			s.AddAddr(f.gateway)
		}
	}
}

func gatewaySilent(_ *bench, c cell) want {
	s := noAnswer(c)
	s.heard = []uint16{c.segment.outer()}
	alive := c.segment.tags
	if len(alive) > 1 {
		alive = alive[:1]
	}
	w := want{verify.GatewaySilent, []string{"though " + alive.String() + " is alive"}, s}
	if isIPv6(c) && len(s.routers) == 0 {
		w.words = append(w.words, "no router advertises itself")
	}
	return w
}

func vlanSilent(heard string, others ...uint16) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		s := noAnswer(c)
		s.heard, s.unheard = others, []uint16{c.segment.outer()}
		return want{verify.VLANSilent, []string{heard, "carries " + c.segment.tags.String()}, s}
	}
}

// tagFaults bring the answer back under tags on which no question was asked.
var tagFaults = []*fault{
	{
		name:     "native VLAN mismatch: answers come without a tag",
		allModes: true, only: func(c cell) bool { return len(c.segment.tags) == 1 },
		make: untagAnswers,
		want: replyOn(nil),
	},
	{
		name: "switch changes the tag of answers", allModes: true, only: tagged,
		make: retagAnswers,
		want: func(b *bench, c cell) want {
			got := append(ether.Tags{{TPID: c.segment.tags[0].TPID, VID: 77}}, c.segment.tags[1:]...)
			return replyOn(got)(b, c)
		},
	},
	{
		name: "switch tags answers that should have none", only: untagged,
		make: tagAnswers,
		want: replyOn(tags(77)),
	},
	{
		name: "switch changes the inner tag of answers", only: func(c cell) bool { return len(c.segment.tags) == 2 },
		make: retagInner,
		want: func(b *bench, c cell) want {
			return replyOn(append(ether.Tags{c.segment.tags[0]}, tags(77)...))(b, c)
		},
	},
}

// untagAnswers makes the cell's VLAN the native one of the switch's port, but not of the host's.
func untagAnswers(b *bench, c cell) (undo func()) {
	b.SetNative(c.segment.vid)
	return func() {
		b.SetNative(untaggedVLAN)
		b.PutOnTrunk(c.segment.vid)
	}
}

func retagAnswers(b *bench, c cell) (undo func()) {
	proto := " protocol 802.1Q"
	if c.segment.usesAD() {
		proto = " protocol 802.1ad"
	}
	return b.FilterTrunk(testenv.Out, "matchall action vlan modify id 77"+proto)
}

func tagAnswers(b *bench, _ cell) (undo func()) {
	return b.FilterTrunk(testenv.Out, "matchall action vlan push id 77")
}

func retagInner(b *bench, c cell) (undo func()) {
	// Frames on the link of the outer VLAN have only the inner tag.
	outer := fmt.Sprintf("%s.%d", testenv.NIC, c.segment.outer())
	return b.FilterLink(c.segment.gateway.Namespace, outer, testenv.Out, "matchall action vlan modify id 77")
}

func replyOn(got ether.Tags) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		return want{verify.ReplyWrongVLAN, []string{"asked on " + c.segment.tags.String(), "answered on " + got.String()},
			&seen{asked: &c.segment.tags, reply: &got, mac: c.segment.gatewayMAC()}}
	}
}

// claimFaults are conflicts over an address.
var claimFaults = []*fault{
	{
		name: "another host has the container's address", allModes: true,
		make: func(_ *bench, c cell) func() {
			c.segment.peer.AddAddr(c.family.ownPrefix)
			return func() { c.segment.peer.RemoveAddr(c.family.ownPrefix) }
		},
		want: wantConflict,
	},
	{
		name: "a virtual machine has the container's address", window: 300 * time.Millisecond,
		make: func(_ *bench, c cell) func() {
			r := c.segment.peer.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr != c.family.own {
					return nil
				}
				return []testenv.Reply{{MAC: virtualMAC}}
			})
			return r.Stop
		},
		want: func(b *bench, c cell) want {
			w := wantConflict(b, c)
			w.words[1], w.seen.claimant = virtualMAC.String()+" (QEMU)", virtualMAC
			return w
		},
	},
	{
		name: "another host is about to take the container's address", window: 300 * time.Millisecond,
		make: func(_ *bench, c cell) func() {
			mac := c.segment.peer.MAC
			r := c.segment.peer.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr != c.family.own {
					return nil
				}
				return []testenv.Reply{{MAC: mac, Probes: true}}
			})
			return r.Stop
		},
		want: wantConflict,
	},
	{
		name: "two hosts have the gateway's address", allModes: true,
		make: func(_ *bench, c cell) func() {
			c.segment.peer.AddAddr(c.family.gateway)
			return func() { c.segment.peer.RemoveAddr(c.family.gateway) }
		},
		want: func(b *bench, c cell) want {
			w := healthyWant(c, c.segment.gatewayMAC().String(), c.segment.peer.MAC.String())
			w.code, w.seen.mac, w.seen.other = verify.GatewayConflict, c.segment.gatewayMAC(), c.segment.peer.MAC
			return w
		},
	},
	{
		name: "another host has the address of a VRRP group", window: 300 * time.Millisecond,
		make: func(b *bench, c cell) func() {
			undo := gatewayBy(answerFrom(vrrp))(b, c)
			c.segment.peer.AddAddr(c.family.gateway)
			return func() { c.segment.peer.RemoveAddr(c.family.gateway); undo() }
		},
		want: func(b *bench, c cell) want {
			w := healthyWant(c, vrrp.String()+" (VRRP", c.segment.peer.MAC.String())
			w.code, w.seen.mac, w.seen.other = verify.GatewayConflict, vrrp, c.segment.peer.MAC
			return w
		},
	},
}

func wantConflict(_ *bench, c cell) want {
	// The round ends at the first claimant, whether or not the gateway has answered.
	s := &seen{roundCut: true, claimant: c.segment.peer.MAC}
	return want{verify.AddressConflict, []string{c.family.own.String(), c.segment.peer.MAC.String()}, s}
}
