//go:build vm

package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// MACs that containers of the other host ask for: the cell's own container's, and another.
// A macvlan that is not Lanyard's has the third.
var (
	twin    = verify.MAC{0x02, 0, 0, 0, 0, 0x77}
	single  = verify.MAC{0x02, 0, 0, 0, 0, 0x78}
	foreign = verify.MAC{0x0a, 0, 0, 0, 0, 0x79}
)

// neighbour is another host on the LAN with Lanyard, whose network has the same
// definition.
type neighbour struct {
	*testenv.Lab
	paths  wiring.Paths
	parent verify.MAC // of its card, and so of every VLAN on it
}

// macOf is what a container of the neighbour has in a cell's mode.
func (n *neighbour) macOf(c cell) verify.MAC {
	if ownMAC(c) {
		return single
	}
	return n.parent
}

func newNeighbour(b *bench) *neighbour {
	b.tb.Helper()
	n := &neighbour{Lab: b.AddHost(), paths: wiring.PathsUnder(filepath.Join(b.tb.TempDir(), "root"))}
	// It says nothing of its own, or a VLAN would look alive.
	must(b.tb, n.Host.Sysctl("net/ipv6/conf/all/disable_ipv6", "1"))
	must(b.tb, n.Host.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	addParents(b.tb, n.Lab)
	card, err := n.Host.Netlink().LinkByName(n.Trunk)
	must(b.tb, err)
	n.parent = verify.MACOf(card.Attrs().HardwareAddr)
	return n
}

func (n *neighbour) admin(f func(ctx context.Context, l *wiring.Lanyard) error) error {
	return inHost(n.Lab, n.paths, f)
}

// attach attaches a container on the neighbour in a cell's place.
func (n *neighbour) attach(b *bench, c cell, mode network.Verify, w hook.Want) (undo func()) {
	b.tb.Helper()
	p := c.family.subnet
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: c.driver(), Parent: c.place.parent, Mode: c.mode,
		Subnets: []network.Subnet{{Subnet: p, Gateway: p.Addr().Next()}}, Verify: mode,
	}
	box := testenv.NewContainer(b.tb)
	must(b.tb, n.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		if _, err := l.CreateNetwork(ctx, def); err != nil {
			return err
		}
		_, err := l.Attach(ctx, hook.Request{Container: "n1", Name: "n1", Pid: box.Pid, Wants: []hook.Want{w}})
		return err
	}))
	return func() {
		must(b.tb, box.Kill())
		must(b.tb, n.admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "n1") }))
		box.End(b.tb)
		must(b.tb, n.admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, "web") }))
	}
}

// hostFaults are about the LAN's other hosts, and about this host as one of its stations.
var hostFaults = []*fault{
	{
		name: "a container of another host has the address", modes: true,
		make: func(b *bench, c cell) func() {
			w := hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}}
			if ownMAC(c) {
				w.MAC = single
			}
			return b.other.attach(b, c, network.VerifyWarn, w)
		},
		want: func(b *bench, c cell) want {
			mac := b.other.macOf(c)
			return want{verify.AddressConflict, []string{c.family.own.String(), mac.String()}, &seen{cut: true, rival: mac}}
		},
	},
	{
		name: "a container of another host has the address and the MAC", modes: true, only: ownMAC, mac: twin,
		make: func(b *bench, c cell) func() {
			return b.other.attach(b, c, network.VerifyWarn, hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: twin})
		},
		want: duplicate,
	},
	{
		name: "a container of another host has the address and the MAC, behind a hairpin port", only: bridged, fresh: true, mac: twin,
		make: func(b *bench, c cell) func() {
			undo := b.other.attach(b, c, network.VerifyWarn, hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: twin})
			b.SetHairpin(true)
			return func() { b.SetHairpin(false); undo() }
		},
		want: duplicate,
	},
	{
		name: "a container of another host comes with the MAC later", modes: true, only: ownMAC, mac: twin, later: true,
		make: func(b *bench, c cell) func() {
			return b.other.attach(b, c, network.VerifyWarn, hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own.Next()}, MAC: twin})
		},
		want: duplicate,
	},
	{
		name: "a container of another host comes with the address and the MAC later", only: func(c cell) bool { return c.mode == network.ModeBridge }, mac: twin, later: true,
		make: func(b *bench, c cell) func() {
			return b.other.attach(b, c, network.VerifyOff, hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: twin})
		},
		want: duplicate,
	},
	{
		name: "this host takes the container's address later", modes: true, later: true,
		make: func(b *bench, c cell) func() {
			add := append(strings.Fields("addr add "+c.family.ownThere+" dev lo"), nodad(c)...)
			b.ip(add...)
			return func() { b.ip(strings.Fields("addr del " + c.family.ownThere + " dev lo")...) }
		},
		want: func(b *bench, c cell) want {
			return want{verify.AddressConflict, []string{c.family.own.String(), `belongs to this host, on link "lo"`}, &seen{cut: true, local: true}}
		},
	},
	{
		name: "a macvlan on the parent that is not Lanyard's has the address", only: bridged,
		make: func(b *bench, c cell) func() {
			other := testenv.NewContainer(b.tb)
			b.ip(strings.Fields(fmt.Sprintf("link add link %s name lan0 address %s netns %s type macvlan mode bridge", c.place.parent, foreign, other.Path()))...)
			for _, args := range [][]string{append(strings.Fields("addr add "+c.family.ownThere+" dev lan0"), nodad(c)...), strings.Fields("link set lan0 up")} {
				_, err := other.Exec("ip", args...)
				must(b.tb, err)
			}
			return func() {
				_, err := other.Exec("ip", "link", "del", "lan0")
				must(b.tb, err)
				must(b.tb, other.Kill())
				other.End(b.tb)
			}
		},
		want: func(b *bench, c cell) want {
			// Of an untagged parent's siblings the trunk sees the answers.
			return want{verify.AddressConflict, []string{c.family.own.String(), foreign.String()}, &seen{cut: true, late: true, rival: foreign}}
		},
	},
	{
		name: "siblings talk, and nothing reaches the host", only: bridged, fresh: true, siblings: true,
		make:  func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.Out, "matchall action drop") },
		speak: siblingsTalk,
		want:  vlanSilent("nothing else was heard"),
	},
	{
		name: "siblings talk, and the VLAN is not on the trunk", only: bridged, fresh: true, siblings: true,
		make: func(b *bench, c cell) func() {
			if c.place.vid == plainVLAN {
				b.SetNative(0)
				return func() { b.SetNative(plainVLAN) }
			}
			b.TakeOffTrunk(c.place.vid)
			return func() { b.PutOnTrunk(c.place.vid) }
		},
		speak: func(b *bench, c cell) { siblingsTalk(b, c); b.say(b.chatter) },
		want:  vlanSilent("heard: VLAN 60", chatterVLAN),
	},
	{
		name: "siblings talk, and nothing leaves the host's port", only: bridged, siblings: true,
		make:  func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.In, "matchall action drop") },
		speak: func(b *bench, c cell) { siblingsTalk(b, c); peerSpeaks(b, c) },
		want:  gatewaySilent,
	},
}

func bridged(c cell) bool { return c.mode == network.ModeBridge }

// nodad has an IPv6 address usable at once.
func nodad(c cell) []string {
	if over6(c) {
		return []string{"nodad"}
	}
	return nil
}

func duplicate(*bench, cell) want {
	return want{verify.DuplicateMAC, []string{twin.String()}, &seen{cut: true, rival: twin}}
}

// siblingsTalk has two containers of the network exchange frames by unicast: on the trunk
// itself these pass its ingress.
func siblingsTalk(b *bench, c cell) {
	b.tb.Helper()
	addr := b.siblings[1].addr
	for range 2 {
		_, err := b.siblings[0].box.Exec("ping", "-n", "-c1", "-W2", addr.String())
		must(b.tb, err)
	}
}

// siblingBox is a container on the cell's network besides the cell's own.
type siblingBox struct {
	box  *testenv.Container
	addr netip.Addr
}

// addSiblings attaches two containers to the cell's network, and returns what ends them.
func (b *bench) addSiblings(c cell) (undo func()) {
	b.tb.Helper()
	b.siblings = nil
	for i := range 2 {
		s := siblingBox{box: testenv.NewContainer(b.tb)}
		id := fmt.Sprintf("s%d", i)
		must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error {
			got, err := l.Attach(ctx, hook.Request{Container: id, Name: id, Pid: s.box.Pid, Wants: []hook.Want{{Network: "web"}}})
			if err == nil {
				s.addr = got[0].Addrs[0].Addr()
			}
			return err
		}))
		b.siblings = append(b.siblings, s)
	}
	return func() {
		for i, s := range b.siblings {
			must(b.tb, s.box.Kill())
			must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, fmt.Sprintf("s%d", i)) }))
			s.box.End(b.tb)
		}
		b.siblings = nil
	}
}

// verifyLater asks again when a fault has come after the start.
func verifyLater(ctx context.Context, l *wiring.Lanyard) (o outcome, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return o, err
	}
	for _, a := range recs {
		if len(a.Containers) == 0 || a.Containers[0].ID != "c1" {
			continue
		}
		start := time.Now()
		verdicts, err := l.Verify(ctx, a)
		o.took = time.Since(start)
		if err != nil {
			return o, err
		}
		o.verdict = verify.Worst(verdicts)
		if e, err := l.Evidence(a); err == nil {
			o.evidence = &e
		}
	}
	return o, nil
}
