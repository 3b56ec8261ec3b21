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

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// A fault is one way to break a LAN, or to leave it whole in a way that looks
// broken, and what the verdict must be.
type fault struct {
	name     string
	only     func(cell) bool // where it can be; nil: everywhere
	make     func(*bench, cell) (undo func())
	want     func(*bench, cell) want
	speak    func(*bench, cell) // who is heard on the trunk then; nil: nobody
	deadline time.Duration
	window   time.Duration // for rivals; 0 adapts to how quick the LAN is
	modes    bool          // met in every mode of macvlan
	blind    bool          // BPF cannot be had
	fresh    bool          // what the trunk has heard until now would mislead
	mac      verify.MAC    // that the container asks for; none: its own
	later    bool          // made after the start: the verdict is of a later verification
	siblings bool          // two other containers are on the network
}

func nothing() {}

func peerSpeaks(b *bench, c cell) { b.say(c.place.peer) }

// silence is what all faults have in common whose only sign is that nobody answers.
func silence(c cell) *seen {
	s := &seen{asked: &c.place.tags}
	if over6(c) {
		s.routers = []verify.MAC{}
	}
	return s
}

func tagged(c cell) bool  { return len(c.place.tags) > 0 }
func ownMAC(c cell) bool  { return c.mode != network.ModePassthru && c.mode != network.ModeL2 }
func noVLANs(c cell) bool { return !tagged(c) }
func over6(c cell) bool   { return c.family.name == "IPv6" }

// outer is the VLAN that the trunk's histogram knows the place by; 0 for none.
func (p *place) outer() uint16 {
	if len(p.tags) == 0 {
		return 0
	}
	return p.tags[0].VID
}

func (p *place) gatewayMAC() verify.MAC { return verify.MACOf(p.gateway.MAC) }

// faults are all there are, in the order of the verdict table.
var faults = func() (all []*fault) {
	for _, list := range [][]*fault{healthy, localFaults, silentFaults, tagFaults, claimFaults, hostFaults} {
		all = append(all, list...)
	}
	return all
}()

// fine is what a healthy place comes to.
func fine(c cell, words ...string) want {
	return want{verify.OK, words, &seen{asked: &c.place.tags, reply: &c.place.tags, heard: []uint16{c.place.outer()}}}
}

// localFaults are on the host itself.
var localFaults = []*fault{
	{
		name: "trunk's port down", modes: true,
		make: func(b *bench, _ cell) func() {
			b.SetTrunk(false)
			testenv.Eventually(b.tb, "the trunk to lose its carrier", func() error {
				l, err := b.Host.Netlink().LinkByName(b.Trunk)
				if err == nil && l.Attrs().OperState == netlink.OperUp {
					err = errors.New("it is up")
				}
				return err
			})
			return func() { b.SetTrunk(true) }
		},
		want: func(b *bench, c cell) want {
			return want{verify.ParentDown, []string{b.Trunk, "carrier"}, &seen{}}
		},
	},
	{
		name: "a filter on the parent drops frames", only: tagged,
		make: func(b *bench, c cell) func() {
			return b.FilterLink(b.Host, c.place.parent, testenv.Out, "matchall action drop")
		},
		want: func(b *bench, c cell) want {
			return want{verify.NotSent, []string{c.place.parent, "tc filter"}, &seen{}}
		},
	},
	{
		name: "another's program ahead of ours drops frames",
		make: dropAhead,
		want: func(_ *bench, c cell) want {
			culprit := "tc filter"
			if hasTCX() && !c.legacy {
				culprit = `TCX program "drop"`
			}
			return want{verify.NotSent, []string{c.place.parent, culprit}, &seen{}}
		},
	},
	{
		name: "a filter sends frames out without a tag", only: tagged,
		make: func(b *bench, c cell) func() {
			return b.FilterLink(b.Host, c.place.parent, testenv.Out, "matchall action mirred egress redirect dev "+b.Trunk)
		},
		want: wrongTag(verify.Untagged, nil),
	},
	{
		name: "a filter sends frames out of another VLAN", modes: true, only: tagged,
		make: func(b *bench, c cell) func() {
			b.ip("link", "add", "link", b.Trunk, "name", "other0", "up", "type", "vlan", "id", fmt.Sprint(chatterVLAN))
			undo := b.FilterLink(b.Host, c.place.parent, testenv.Out, "matchall action mirred egress redirect dev other0")
			return func() { undo(); b.ip("link", "del", "other0") }
		},
		want: wrongTag(verify.WrongVLAN, tags(chatterVLAN)),
	},
	{
		name: "a filter pushes a tag too many",
		make: func(b *bench, c cell) func() {
			return b.FilterLink(b.Host, c.place.parent, testenv.Out, "matchall action vlan push id 99")
		},
		only: tagged,
		want: func(b *bench, c cell) want {
			return wrongTag(verify.UnexpectedTag, append(append(verify.Tags{}, c.place.tags...), tags(99)...))(b, c)
		},
	},
	{
		name: "no BPF", blind: true,
		make: func(*bench, cell) func() { return nothing },
		want: func(*bench, cell) want { return want{verify.Unobserved, []string{"tags were not watched"}, nil} },
	},
	{
		name: "no BPF, gateway has no address", blind: true,
		make: withoutAddress,
		want: func(*bench, cell) want { return want{verify.GatewaySilent, []string{"tags were not watched"}, nil} },
	},
}

// dropAhead has another's program drop frames on the trunk before ours sees them: by
// TCX where ours is there by TCX, else by a later filter of clsact with our priority,
// which the kernel tries first (net/sched/cls_bpf.c, cls_bpf_change).
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
			l, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
			return err
		}))
		return func() { must(b.tb, errors.Join(l.Close(), prog.Close())) }
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 0xbad, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          prog.FD(), Name: "drop", DirectAction: true,
	}
	must(b.tb, b.Host.Netlink().FilterAdd(filter))
	return func() { must(b.tb, errors.Join(b.Host.Netlink().FilterDel(filter), prog.Close())) }
}

// wrongTag is what frames come to that leave the trunk as they should not. Where
// the MAC is the parent's own they are not stopped.
func wrongTag(code verify.Code, got verify.Tags) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		return want{code, []string{"as " + got.String(), "not " + c.place.tags.String()}, &seen{asked: &got, dropped: ownMAC(c)}}
	}
}

func withoutAddress(_ *bench, c cell) func() {
	c.place.gateway.RemoveAddr(c.family.gateway)
	return func() { c.place.gateway.AddAddr(c.family.gateway) }
}

// silentFaults leave the gateway without a word.
var silentFaults = []*fault{
	{
		name: "gateway has no address, VLAN alive", modes: true,
		make:  withoutAddress,
		speak: peerSpeaks,
		want:  gatewaySilent,
	},
	{
		name: "gateway has another address than it should, and advertises itself", only: over6,
		make: func(b *bench, c cell) func() {
			undo, mac := withoutAddress(b, c), c.place.gatewayMAC()
			r := c.place.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr.IsValid() {
					return nil
				}
				return []testenv.Reply{{MAC: mac}}
			})
			return func() { r.Stop(); undo() }
		},
		want: func(b *bench, c cell) want {
			w := gatewaySilent(b, c)
			w.words = append(w.words[:1], "router "+c.place.gatewayMAC().LinkLocal().String(), c.place.gatewayMAC().String())
			w.seen.routers = []verify.MAC{c.place.gatewayMAC()}
			return w
		},
	},
	{
		name: "gateway's port down, VLAN alive",
		make: func(b *bench, c cell) func() {
			c.place.gateway.SetPort(false)
			return func() {
				c.place.gateway.SetPort(true)
				b.restoreAddrs(c.place.gateway)
			}
		},
		speak: peerSpeaks,
		want:  gatewaySilent,
	},
	{
		name: "gateway's port in another VLAN", fresh: true,
		make: func(b *bench, c cell) func() {
			c.place.gateway.MoveToVLAN(chatterVLAN)
			return func() { c.place.gateway.MoveToVLAN(c.place.vid) }
		},
		want: vlanSilent("nothing else was heard"),
	},
	{
		name: "VLAN not on the trunk, another alive", modes: true, fresh: true,
		make: func(b *bench, c cell) func() {
			if c.place.vid == plainVLAN {
				b.SetNative(0)
				return func() { b.SetNative(plainVLAN) }
			}
			b.TakeOffTrunk(c.place.vid)
			return func() { b.PutOnTrunk(c.place.vid) }
		},
		speak: func(b *bench, _ cell) { b.say(b.chatter) },
		want:  vlanSilent("heard: VLAN 60", chatterVLAN),
	},
	{
		name: "nothing reaches the host", fresh: true,
		make: func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.Out, "matchall action drop") },
		want: vlanSilent("nothing else was heard"),
	},
	{
		name:  "nothing leaves the host's port, VLAN alive",
		make:  func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.In, "matchall action drop") },
		speak: peerSpeaks,
		want:  gatewaySilent,
	},
	{
		name: "port security: only the parent's MAC in", modes: true, only: ownMAC,
		make: func(b *bench, _ cell) func() {
			return b.FilterTrunk(testenv.In, "flower src_mac "+b.parent.String()+" action pass", "matchall action drop")
		},
		want: func(b *bench, c cell) want {
			s := silence(c)
			return want{verify.MACFiltered, []string{c.place.gatewayMAC().String(), "port security", c.place.parent}, s}
		},
	},
	{
		name: "hypervisor: only the parent's MAC out", modes: true, only: ownMAC,
		make: func(b *bench, _ cell) func() {
			return b.FilterTrunk(testenv.Out,
				"flower dst_mac "+b.parent.String()+" action pass",
				"flower dst_mac 01:00:00:00:00:00/01:00:00:00:00:00 action pass",
				"matchall action drop")
		},
		want: func(b *bench, c cell) want {
			s := silence(c)
			if over6(c) { // answers to :: go to all, and come in
				s.reply, s.routers = &c.place.tags, nil
			}
			return want{verify.MACFiltered, []string{c.place.gatewayMAC().String(), "promiscuous"}, s}
		},
	},
}

// restoreAddrs gives a station its IPv6 addresses again, which the kernel takes
// off a link that goes down.
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
	s := silence(c)
	s.heard = []uint16{c.place.outer()}
	alive := c.place.tags
	if len(alive) > 1 {
		alive = alive[:1]
	}
	w := want{verify.GatewaySilent, []string{"though " + alive.String() + " is alive"}, s}
	if over6(c) && len(s.routers) == 0 {
		w.words = append(w.words, "no router advertises itself")
	}
	return w
}

func vlanSilent(heard string, others ...uint16) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		s := silence(c)
		s.heard, s.unheard = others, []uint16{c.place.outer()}
		return want{verify.VLANSilent, []string{heard, "carries " + c.place.tags.String()}, s}
	}
}

// tagFaults bring the answer back where nobody asked.
var tagFaults = []*fault{
	{
		name: "native VLAN mismatch: answers come without a tag", modes: true, only: func(c cell) bool { return len(c.place.tags) == 1 },
		make: func(b *bench, c cell) func() {
			b.SetNative(c.place.vid)
			return func() {
				b.SetNative(plainVLAN)
				b.PutOnTrunk(c.place.vid)
			}
		},
		want: replyOn(nil),
	},
	{
		name: "switch changes the tag of answers", modes: true, only: tagged,
		make: func(b *bench, c cell) func() {
			proto := " protocol 802.1Q"
			if c.place.ad() {
				proto = " protocol 802.1ad"
			}
			return b.FilterTrunk(testenv.Out, "matchall action vlan modify id 77"+proto)
		},
		want: func(b *bench, c cell) want {
			got := append(verify.Tags{{TPID: c.place.tags[0].TPID, VID: 77}}, c.place.tags[1:]...)
			return replyOn(got)(b, c)
		},
	},
	{
		name: "switch tags answers that should have none", only: noVLANs,
		make: func(b *bench, _ cell) func() {
			return b.FilterTrunk(testenv.Out, "matchall action vlan push id 77")
		},
		want: replyOn(tags(77)),
	},
	{
		name: "switch changes the inner tag of answers", only: func(c cell) bool { return len(c.place.tags) == 2 },
		make: func(b *bench, c cell) func() {
			outer := fmt.Sprintf("%s.%d", testenv.NIC, c.place.outer()) // frames leave it with the inner tag only
			return b.FilterLink(c.place.gateway.Namespace, outer, testenv.Out, "matchall action vlan modify id 77")
		},
		want: func(b *bench, c cell) want {
			return replyOn(append(verify.Tags{c.place.tags[0]}, tags(77)...))(b, c)
		},
	},
}

func replyOn(got verify.Tags) func(*bench, cell) want {
	return func(_ *bench, c cell) want {
		return want{verify.ReplyWrongVLAN, []string{"asked on " + c.place.tags.String(), "answered on " + got.String()}, &seen{asked: &c.place.tags, reply: &got, mac: c.place.gatewayMAC()}}
	}
}

// claimFaults are about who holds an address.
var claimFaults = []*fault{
	{
		name: "another host has the container's address", modes: true,
		make: func(_ *bench, c cell) func() {
			c.place.peer.AddAddr(c.family.ownThere)
			return func() { c.place.peer.RemoveAddr(c.family.ownThere) }
		},
		want: conflict,
	},
	{
		name: "a virtual machine has the container's address", window: 300 * time.Millisecond,
		make: func(_ *bench, c cell) func() {
			r := c.place.peer.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr != c.family.own {
					return nil
				}
				return []testenv.Reply{{MAC: machine}}
			})
			return r.Stop
		},
		want: func(b *bench, c cell) want {
			w := conflict(b, c)
			w.words[1], w.seen.rival = machine.String()+" (QEMU)", machine
			return w
		},
	},
	{
		name: "another host is about to take the container's address", window: 300 * time.Millisecond,
		make: func(_ *bench, c cell) func() {
			mac := verify.MACOf(c.place.peer.MAC)
			r := c.place.peer.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr != c.family.own {
					return nil
				}
				return []testenv.Reply{{MAC: mac, Probes: true}}
			})
			return r.Stop
		},
		want: conflict,
	},
	{
		name: "two hosts have the gateway's address", modes: true,
		make: func(_ *bench, c cell) func() {
			c.place.peer.AddAddr(c.family.gateway)
			return func() { c.place.peer.RemoveAddr(c.family.gateway) }
		},
		want: func(b *bench, c cell) want {
			w := fine(c, c.place.gatewayMAC().String(), c.place.peer.MAC.String())
			w.code, w.seen.mac, w.seen.other = verify.GatewayConflict, c.place.gatewayMAC(), verify.MACOf(c.place.peer.MAC)
			return w
		},
	},
	{
		name: "another host has the address of a VRRP group", window: 300 * time.Millisecond,
		make: func(b *bench, c cell) func() {
			undo := gatewayBy(answers(vrrp))(b, c)
			c.place.peer.AddAddr(c.family.gateway)
			return func() { c.place.peer.RemoveAddr(c.family.gateway); undo() }
		},
		want: func(b *bench, c cell) want {
			w := fine(c, vrrp.String()+" (VRRP", c.place.peer.MAC.String())
			w.code, w.seen.mac, w.seen.other = verify.GatewayConflict, vrrp, verify.MACOf(c.place.peer.MAC)
			return w
		},
	},
}

func conflict(_ *bench, c cell) want {
	// The round ends at the first rival, whether or not the gateway has answered.
	s := &seen{cut: true, rival: verify.MACOf(c.place.peer.MAC)}
	return want{verify.AddressConflict, []string{c.family.own.String(), c.place.peer.MAC.String()}, s}
}
