//go:build vm

package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// MACs that containers of the other host request: duplicateMAC is also requested by the cell's own
// container. foreignMAC is the MAC of a macvlan that Lanyard did not make.
var (
	duplicateMAC = ether.MAC{0x02, 0, 0, 0, 0, 0x77}
	otherHostMAC = ether.MAC{0x02, 0, 0, 0, 0, 0x78}
	foreignMAC   = ether.MAC{0x0a, 0, 0, 0, 0, 0x79}
)

// otherHost is another host on the LAN. It has Lanyard and the same definition of the network.
type otherHost struct {
	*testenv.Lab
	paths  wiring.Paths
	parent ether.MAC // MAC of its card, and so of every VLAN on it
}

// containerMAC returns the MAC of a container on the other host in a cell's mode.
func (n *otherHost) containerMAC(c cell) ether.MAC {
	if ownMAC(c) {
		return otherHostMAC
	}
	return n.parent
}

func newOtherHost(b *bench) *otherHost {
	b.tb.Helper()
	n := &otherHost{Lab: b.AddHost(), paths: wiring.PathsUnder(filepath.Join(b.tb.TempDir(), "root"))}
	// The host must send nothing unasked, or a VLAN would look alive.
	must(b.tb, n.Host.Sysctl("net/ipv6/conf/all/disable_ipv6", "1"))
	must(b.tb, n.Host.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	addParents(b.tb, n.Lab)
	card, err := n.Host.Netlink().LinkByName(n.Trunk)
	must(b.tb, err)
	n.parent = ether.MACOf(card.Attrs().HardwareAddr)
	return n
}

func (n *otherHost) admin(f func(ctx context.Context, l *wiring.Lanyard) error) error {
	return inHost(n.Lab, n.paths, f)
}

// attach attaches a container on the other host in a cell's segment.
func (n *otherHost) attach(b *bench, c cell, mode verify.Mode, w hook.Want) (undo func()) {
	b.tb.Helper()
	p := c.family.subnet
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: c.driver(), Parent: c.segment.parent, Mode: c.mode,
		Subnets: []network.Subnet{{Subnet: p, Gateway: p.Addr().Next()}}, Verify: mode,
	}
	box := testenv.NewContainer(b.tb)
	must(b.tb, n.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		if _, err := l.CreateNetwork(ctx, def); err != nil {
			return err
		}
		// The last frames of the first host's container, or of the station before it, may be a reason to refuse.
		for range 5 {
			_, err := l.Attach(ctx, hook.Request{Container: "n1", Name: "n1", Pid: box.Pid, Wants: []hook.Want{w}})
			var refusal *hook.Refusal
			if !errors.As(err, &refusal) ||
				refusal.Verdict.Code != verify.DuplicateMAC && refusal.Verdict.Code != verify.AddressConflict {
				return err
			}
			b.tb.Logf("the other host tries again: %v", err)
		}
		return errors.New("the other host is refused again and again")
	}))
	return func() {
		// The kernel would take it away with the namespace, some time after the next cell began.
		_, err := box.Exec("ip", "link", "del", "eth0")
		must(b.tb, err)
		must(b.tb, box.Kill())
		must(b.tb, n.admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "n1") }))
		box.End(b.tb)
		must(b.tb, n.admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, "web") }))
	}
}

// hostFaults concern the LAN's other hosts, and this host as one of its stations.
var hostFaults = []*fault{
	{
		name: "a container of another host has the address", allModes: true,
		make: func(b *bench, c cell) func() {
			w := hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}}
			if ownMAC(c) {
				w.MAC = otherHostMAC
			}
			return b.firstOtherHost.attach(b, c, verify.Warn, w)
		},
		want: func(b *bench, c cell) want {
			mac := b.firstOtherHost.containerMAC(c)
			return want{verify.AddressConflict, []string{c.family.own.String(), mac.String()},
				&seen{roundCut: true, claimant: mac}}
		},
	},
	{
		name: "a container of another host has the address and the MAC", allModes: true, only: ownMAC, mac: duplicateMAC,
		make: func(b *bench, c cell) func() {
			return b.firstOtherHost.attach(b, c, verify.Warn,
				hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: duplicateMAC})
		},
		want: wantDuplicate,
	},
	{
		name: "a container of another host has the address and the MAC, behind a hairpin port",
		only: isBridge, newNetwork: true, mac: duplicateMAC,
		make: func(b *bench, c cell) func() {
			undo := b.firstOtherHost.attach(b, c, verify.Warn,
				hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: duplicateMAC})
			b.SetHairpin(true)
			return func() { b.SetHairpin(false); undo() }
		},
		want: wantDuplicate,
	},
	{
		name:     "a container of another host gets the same MAC later",
		allModes: true, only: ownMAC, mac: duplicateMAC, afterStart: true,
		make: func(b *bench, c cell) func() {
			return b.firstOtherHost.attach(b, c, verify.Warn,
				hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own.Next()}, MAC: duplicateMAC})
		},
		want: wantDuplicate,
	},
	{
		name: "a container of another host gets the same address and MAC later",
		only: func(c cell) bool { return c.mode == network.ModeBridge }, mac: duplicateMAC, afterStart: true,
		make: func(b *bench, c cell) func() {
			return b.firstOtherHost.attach(b, c, verify.Off,
				hook.Want{Network: "web", Addrs: []netip.Addr{c.family.own}, MAC: duplicateMAC})
		},
		want: wantDuplicate,
	},
	{
		name: "this host takes the container's address later", allModes: true, afterStart: true,
		make: func(b *bench, c cell) func() {
			add := append(strings.Fields("addr add "+c.family.ownPrefix+" dev lo"), noDAD(c)...)
			b.ip(add...)
			return func() { b.ip(strings.Fields("addr del " + c.family.ownPrefix + " dev lo")...) }
		},
		want: func(b *bench, c cell) want {
			return want{verify.AddressConflict, []string{c.family.own.String(), `belongs to this host, on link "lo"`},
				&seen{roundCut: true, hostLink: true}}
		},
	},
	{
		name: "a macvlan on the parent that is not Lanyard's has the address", only: isBridge,
		make: func(b *bench, c cell) func() {
			other := testenv.NewContainer(b.tb)
			b.ip(strings.Fields(fmt.Sprintf("link add link %s name lan0 address %s netns %s type macvlan mode bridge",
				c.segment.parent, foreignMAC, other.Path()))...)
			for _, args := range [][]string{append(strings.Fields("addr add "+c.family.ownPrefix+" dev lan0"), noDAD(c)...),
				strings.Fields("link set lan0 up")} {
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
			// The trunk sees the answers of siblings only if the parent is untagged.
			return want{verify.AddressConflict, []string{c.family.own.String(), foreignMAC.String()},
				&seen{roundCut: true, optional: true, claimant: foreignMAC}}
		},
	},
	{
		name: "siblings talk, and nothing reaches the host", only: isBridge, newNetwork: true, siblings: true,
		make:     func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.Out, "matchall action drop") },
		announce: pingSiblings,
		want:     vlanSilent("nothing else was heard"),
	},
	{
		name: "siblings talk, and the VLAN is not on the trunk", only: isBridge, newNetwork: true, siblings: true,
		make:     takeOffTrunk,
		announce: func(b *bench, c cell) { pingSiblings(b, c); b.announce(b.otherVLANStation) },
		want:     vlanSilent("heard: VLAN 60", otherVLAN),
	},
	{
		name: "siblings talk, and nothing leaves the host's port", only: isBridge, siblings: true,
		make:     func(b *bench, _ cell) func() { return b.FilterTrunk(testenv.In, "matchall action drop") },
		announce: func(b *bench, c cell) { pingSiblings(b, c); announcePeer(b, c) },
		want:     gatewaySilent,
	},
}

func isBridge(c cell) bool { return c.mode == network.ModeBridge }

// noDAD returns the argument that makes an IPv6 address usable at once.
func noDAD(c cell) []string {
	if isIPv6(c) {
		return []string{"nodad"}
	}
	return nil
}

func wantDuplicate(*bench, cell) want {
	return want{verify.DuplicateMAC, []string{duplicateMAC.String()}, &seen{roundCut: true, claimant: duplicateMAC}}
}

// pingSiblings has two containers of the network exchange unicast frames, which pass the ingress if
// the parent is the trunk itself.
func pingSiblings(b *bench, c cell) {
	b.tb.Helper()
	addr := b.siblings[1].addr
	for range 2 {
		_, err := b.siblings[0].container.Exec("ping", "-n", "-c1", "-W2", addr.String())
		must(b.tb, err)
	}
}

// siblingContainer is a container on the cell's network in addition to the cell's own.
type siblingContainer struct {
	container *testenv.Container
	addr      netip.Addr
}

// addSiblings attaches two containers to the cell's network, and returns a function that ends them.
func (b *bench) addSiblings(c cell) (undo func()) {
	b.tb.Helper()
	b.siblings = nil
	for i := range 2 {
		s := siblingContainer{container: testenv.NewContainer(b.tb)}
		id := fmt.Sprintf("s%d", i)
		must(b.tb, b.admin(c, func(ctx context.Context, l *wiring.Lanyard) error {
			got, err := l.Attach(ctx, hook.Request{Container: id, Name: id, Pid: s.container.Pid,
				Wants: []hook.Want{{Network: "web"}}})
			if err == nil {
				s.addr = got[0].Addrs[0].Addr()
			}
			return err
		}))
		b.siblings = append(b.siblings, s)
	}
	return func() {
		for i, s := range b.siblings {
			must(b.tb, s.container.Kill())
			must(b.tb, b.admin(c, func(ctx context.Context,
				l *wiring.Lanyard) error {
				return l.Detach(ctx, fmt.Sprintf("s%d", i))
			}))
			s.container.End(b.tb)
		}
		b.siblings = nil
	}
}

// verifyAfterStart verifies the container again after a fault was made.
func verifyAfterStart(ctx context.Context, l *wiring.Lanyard) (o outcome, err error) {
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
