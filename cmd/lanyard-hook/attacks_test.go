package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

var (
	broadcast = ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
)

func etherFrame(dst, src ether.MAC, proto uint16, parts ...[]byte) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	b = binary.BigEndian.AppendUint16(b, proto)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func packet4(src, dst string, proto byte, payload ...byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], netip.MustParseAddr(src).AsSlice())
	copy(h[16:], netip.MustParseAddr(dst).AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	return append(h, payload...)
}

func packet6(src, dst netip.Addr, next byte, payload ...byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

func udpPorts(src, dst uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	return append(binary.BigEndian.AppendUint16(b, dst), 0, 40, 0, 0)
}

func tag(tpid, vid uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpid), vid)
}

// attackFrames returns frames by which the owner of a macvlan could harm other stations,
// sent by a station with the MAC, the IPv4 address .9 and the IPv6 address ::9. Each ends
// with the mark.
func attackFrames(tb testing.TB, own, gateway, victim ether.MAC, mark []byte) map[string][]byte {
	tb.Helper()
	must2 := func(b []byte, err error) []byte {
		tb.Helper()
		must(tb, err)
		return b
	}
	v4, v6, own6 := netip.MustParseAddr("192.168.50.10"), netip.MustParseAddr("fd50::10"), netip.MustParseAddr("fd50::9")
	gw4 := netip.MustParseAddr("192.168.50.1")
	ll := own.LinkLocal()
	group := ndp.GroupMAC(allNodes)
	icmp := func(kind byte) []byte { return append([]byte{kind, 0, 0, 0}, make([]byte, 20)...) }
	ping := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, mark...)
	frames := map[string][]byte{
		"another MAC": etherFrame(gateway, ether.MAC{2, 0, 0, 0, 0, 0x66}, 0x0800,
			packet4("192.168.50.9", "192.168.50.1", 1, ping...)),
		"the gateway's MAC": etherFrame(victim, gateway, 0x0800,
			packet4("192.168.50.9", "192.168.50.10", 1, ping...)),
		"the victim's MAC": etherFrame(gateway, victim, 0x0800,
			packet4("192.168.50.10", "192.168.50.1", 1, ping...)),
		"the victim's IPv4 address": etherFrame(gateway, own, 0x0800, packet4("192.168.50.10", "192.168.50.1", 1, ping...)),
		"the victim's IPv6 address": etherFrame(gateway, own, 0x86dd,
			packet6(v6, allNodes, 58, append(icmp(128), mark...)...)),
		"VLAN 60 by hand": etherFrame(gateway, own, 0x8100, tag(60, 0x0800),
			packet4("192.168.50.9", "192.168.50.1", 1, ping...)),
		"QinQ by hand": etherFrame(gateway, own, 0x88a8, tag(60, 0x8100), tag(50, 0x0800),
			packet4("192.168.50.9", "192.168.50.1", 1, ping...)),
		"VLAN 0 by hand": etherFrame(gateway, own, 0x8100, tag(0, 0x0800),
			packet4("192.168.50.9", "192.168.50.1", 1, ping...)),
		"ARP: the gateway is me": must2(
			arp.Packet{Destination: victim, Source: own, Reply: true, Sender: own, SenderIP: gw4, Target: victim,
				TargetIP: v4}.Frame()),
		"ARP: the victim is me": must2(arp.Announce(own, v4)),
		"ARP: I am at another's MAC": must2(
			arp.Packet{Destination: broadcast, Source: own, Sender: victim, SenderIP: netip.MustParseAddr("192.168.50.9"),
				TargetIP: gw4}.Frame()),
		"ARP: a probe for the victim": must2(arp.Probe(own, v4)),
		"ND: the victim is me": must2(
			ndp.Message{Destination: group, Source: own, From: own6, To: allNodes, Target: v6, Advert: true, Override: true,
				LinkLayer: own}.Frame()),
		"ND: I am at another's MAC": must2(
			ndp.Message{Destination: group, Source: own, From: own6, To: allNodes, Target: own6, Advert: true, Override: true,
				LinkLayer: gateway}.Frame()),
		"ND: DAD for the victim":        must2(ndp.Probe(own, v6)),
		"ND: a question from the other": must2(ndp.Solicit(own, v6, own6)),
		"a router advertisement": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 58, append(icmp(134), mark...)...)),
		"a redirect": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 58, append(icmp(137), mark...)...)),
		"an RA in a fragment": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 44, append(append([]byte{58, 0, 0, 1, 0, 0, 0, 7}, icmp(134)...), mark...)...)),
		"an RA behind options": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 60, append(append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, icmp(134)...), mark...)...)),
		"an RA behind hop-by-hop": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 0, append(append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, icmp(134)...), mark...)...)),
		"an ICMP redirect": etherFrame(victim, own, 0x0800,
			packet4("192.168.50.9", "192.168.50.10", 1, append([]byte{5, 1, 0, 0, 192, 168, 50, 9}, mark...)...)),
		"a DHCP offer": etherFrame(broadcast, own, 0x0800,
			packet4("192.168.50.9", "255.255.255.255", 17, append(udpPorts(67, 68), mark...)...)),
		"a DHCPv6 answer": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 17, append(udpPorts(547, 546), mark...)...)),
		"a DHCP request": etherFrame(broadcast, own, 0x0800,
			packet4("192.168.50.9", "255.255.255.255", 17, append(udpPorts(68, 67), mark...)...)),
		"a DHCPv6 request": etherFrame(group, own, 0x86dd,
			packet6(ll, allNodes, 17, append(udpPorts(546, 547), mark...)...)),
		"spanning tree": etherFrame(ether.MAC{1, 0x80, 0xc2}, own, 38, []byte{0x42, 0x42, 3}, make([]byte, 35)),
		"LLDP":          etherFrame(ether.MAC{1, 0x80, 0xc2, 0, 0, 0xe}, own, 0x88cc, make([]byte, 46)),
		"a pause":       etherFrame(ether.MAC{1, 0x80, 0xc2, 0, 0, 1}, own, 0x8808, make([]byte, 46)),
		"an IGMP query": etherFrame(ether.MAC{1, 0, 0x5e, 0, 0, 1}, own, 0x0800,
			packet4("192.168.50.9", "224.0.0.1", 2, append([]byte{0x11, 0, 0, 0, 0, 0, 0, 0}, mark...)...)),
		"VRRP: I am the gateway": etherFrame(ether.MAC{1, 0, 0x5e, 0, 0, 18}, own, 0x0800,
			packet4("192.168.50.9", "224.0.0.18", 112,
				append([]byte{0x31, 1, 255, 1, 0, 1, 0, 0, 192, 168, 50, 1}, mark...)...)),
		"OSPF": etherFrame(ether.MAC{1, 0, 0x5e, 0, 0, 5}, own, 0x0800,
			packet4("192.168.50.9", "224.0.0.5", 89, append([]byte{2, 1, 0, 44}, mark...)...)),
		"HSRP: I am the gateway": etherFrame(ether.MAC{1, 0, 0x5e, 0, 0, 2}, own, 0x0800,
			packet4("192.168.50.9", "224.0.0.2", 17, append(udpPorts(1985, 1985), mark...)...)),
		"an MLD query": etherFrame(group, own, 0x86dd, packet6(ll, allNodes, 58, append(icmp(130), mark...)...)),
	}
	for what, f := range frames {
		if !bytes.HasSuffix(f, mark) {
			frames[what] = append(f, mark...)
		}
	}
	return frames
}

// prisoner is a lab with a guarded container, whose owner attacks, and a victim.
type prisoner struct {
	*brokered
	gw               *testenv.Station
	c, victim        *testenv.Container
	own, its, router ether.MAC
	ends             int // number of frames that end has sent
}

func newPrisoner(t *testing.T, edit func(*network.Definition)) *prisoner {
	t.Helper()
	b, gw := lanBrokered(t, edit)
	p := &prisoner{brokered: b, gw: gw, c: testenv.NewRootless(t, alice), victim: testenv.NewRootless(t, bob),
		router: gw.MAC}
	b.mustAttachBy(alice, "prisoner", p.c.Pid, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	p.own = b.Record().MAC
	b.mustAttachBy(bob, "victim", p.victim.Pid, "network=web", "ip=192.168.50.10", "ip6=fd50::10")
	for _, a := range b.Records() {
		if a.Owner == bob {
			p.its = a.MAC
		}
	}
	return p
}

// end broadcasts a permitted frame on the same path, which tells the wiretaps that no
// more frames follow. Each has another mark: a wiretap on a switch sees a frame at several ports.
func (p *prisoner) end(t *testing.T, r *raw) []byte {
	t.Helper()
	p.ends++
	mark := fmt.Appendf(nil, "-the-end-%d-", p.ends)
	r.mustSend(t, etherFrame(broadcast, p.own, 0x0800, packet4("192.168.50.9", "255.255.255.255", 17,
		append(udpPorts(4242, 4242), mark...)...)))
	return mark
}

// wantUnseen checks that no wiretap has seen a frame with the mark before the frame with end.
func wantUnseen(t *testing.T, taps map[string]*wiretap, mark, end []byte) {
	t.Helper()
	for where, tap := range taps {
		for _, f := range tap.until(t, end) {
			if bytes.Contains(f, mark) {
				t.Errorf("%s saw %x", where, f)
			}
		}
	}
}

// TestAttackFrames checks that no attack frame reaches the wire or another container, and
// that all of them are counted.
func TestAttackFrames(t *testing.T) {
	p := newPrisoner(t, nil)
	mark := []byte("!attack!")
	frames := attackFrames(t, p.own, p.router, p.its, mark)
	taps := map[string]*wiretap{
		"the switch": mustTap(t, p.Switch), "the gateway": mustTap(t, p.gw.Namespace),
		"the victim": mustTap(t, p.victim.Namespace), "the host": mustTap(t, p.Host),
	}
	r := mustRaw(t, p.c.Namespace, "eth0")
	before := p.stopped("prisoner")
	for _, f := range frames {
		r.mustSend(t, f)
	}
	end := p.end(t, r)
	wantUnseen(t, taps, mark, end)
	if n := p.stopped("prisoner") - before; n != uint64(len(frames)) {
		t.Errorf("%d frames were sent, and %d counted", len(frames), n)
	}
	hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
}

// TestAttackFramesDirect does the same from a user's macvlan, with the guard on the
// parent's egress: no frame leaves the host. Frames between macvlans of one parent do not
// pass there.
func TestAttackFramesDirect(t *testing.T) {
	p := newPrisoner(t, direct)
	mark := []byte("!attack!")
	frames := attackFrames(t, p.own, p.router, p.its, mark)
	// A frame with the complete lease of another container, MAC included, cannot be told
	// apart on the egress. This remains possible, for users of the same parent only.
	delete(frames, "the victim's MAC")
	taps := map[string]*wiretap{"the switch": mustTap(t, p.Switch), "the gateway": mustTap(t, p.gw.Namespace)}
	r := mustRaw(t, p.c.Namespace, "eth0")
	for _, f := range frames {
		r.mustSend(t, f)
	}
	end := p.end(t, r)
	wantUnseen(t, taps, mark, end)
	if n := p.stopped("prisoner"); n < 15 {
		t.Errorf("%d frames were counted", n)
	}
	hooklab.Pings(t, p.c.Namespace, "192.168.50.1")
	hooklab.Pings(t, p.c.Namespace, "fd50::1")
	hooklab.Pings(t, p.gw.Namespace, "fd50::9")

	// A nested macvlan reaches nothing, and is counted.
	for _, args := range []string{"add nested link eth0 address 02:00:00:00:00:66 type macvlan mode bridge",
		"set nested up"} {
		_, err := p.c.Exec("ip", append([]string{"link"}, strings.Fields(args)...)...)
		must(t, err)
	}
	nested := mustRaw(t, p.c.Namespace, "nested")
	nested.mustSend(t, etherFrame(broadcast, ether.MAC{2, 0, 0, 0, 0, 0x66}, 0x0800,
		packet4("192.168.50.66", "255.255.255.255", 17, append(udpPorts(1, 2), mark...)...)))
	end = p.end(t, r)
	for _, f := range taps["the switch"].until(t, end) {
		if bytes.Contains(f, mark) {
			t.Errorf("the nested macvlan sent %x", f)
		}
	}
	must(t, p.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		found, broken := l.Audit(ctx)
		if len(broken) > 0 || len(found) != 1 || found[0].Err != nil ||
			fmt.Sprint(found[0].Unleased) != "[02:00:00:00:00:66]" || found[0].Dropped["source-mac"] == 0 {
			t.Errorf("the audit finds %+v, %v", found, broken)
		}
		return nil
	}))
	// After the detach its MAC reaches nothing either, although its owner kept the
	// interface.
	must(t, p.c.Kill())
	p.mustDetachBy(alice, "prisoner")
	must(t, p.victim.Kill())
	p.mustDetachBy(bob, "victim")
}

// stopped returns the guard's counters that "lanyard ps" shows.
func (p *prisoner) stopped(id string) (n uint64) {
	p.tb.Helper()
	must(p.tb, p.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		recs, err := l.Attachments(ctx)
		for _, a := range recs {
			if len(a.Containers) == 0 || a.Containers[0].ID != id {
				continue
			}
			g, gerr := l.Guarded(a)
			if gerr != nil {
				return gerr
			}
			if g == nil {
				return fmt.Errorf("%q is not guarded", id)
			}
			n = g.Dropped()
		}
		return err
	}))
	return n
}

// unicast returns the MACs that the parent accepts in addition to its own.
func (p *prisoner) unicast() string {
	p.tb.Helper()
	out, err := p.Host.Exec("bridge", "fdb", "show", "dev", p.Trunk)
	must(p.tb, err)
	return out
}

// TestAttackLinks checks that link settings by which the owner of a macvlan affects the
// parent have no effect from a guarded container.
func TestAttackLinks(t *testing.T) {
	p := newPrisoner(t, nil)
	before := p.unicast()
	ip := func(args ...string) error {
		_, err := p.c.Exec("ip", args...)
		return err
	}
	// Changing the mode has no effect on a link that is not a macvlan.
	if err := ip("link", "set", "eth0", "type", "macvlan", "mode", "bridge"); err == nil {
		t.Error("eth0 is a macvlan")
	}
	p.nest(t, 300)
	// The gateway's MAC, and a link that listens to the gateway's frames.
	must(t, ip("link", "add", "thief", "link", "eth0", "address", p.router.String(), "type", "macvlan", "mode", "bridge"))
	must(t, ip("link", "set", "thief", "up"))
	must(t, ip("link", "add", "spy", "link", "eth0", "type", "macvlan", "mode", "source"))
	must(t, ip("link", "set", "spy", "type", "macvlan", "macaddr", "add", p.router.String()))
	must(t, ip("link", "set", "spy", "up"))
	must(t, ip("link", "set", "eth0", "promisc", "on", "allmulticast", "on"))
	if now := p.unicast(); now != before {
		t.Errorf("the parent's list was\n%s and is\n%s", before, now)
	}
	if out, err := p.Host.Exec("ip", "-d", "link", "show", p.Trunk); err != nil || strings.Contains(out, "PROMISC") ||
		strings.Contains(out, "ALLMULTI") {
		t.Errorf("the parent is %s, %v", out, err)
	}
	// No other station hears the frames between victim and gateway.
	tap := mustTap(t, p.c.Namespace)
	for range 5 {
		hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
		hooklab.Pings(t, p.victim.Namespace, "fd50::1")
	}
	r := mustRaw(t, p.c.Namespace, "eth0")
	for _, f := range tap.until(t, p.end(t, r)) {
		if ether.MAC(f[:6]) == p.its || ether.MAC(f[:6]) == p.router && ether.MAC(f[6:12]) == p.its {
			t.Errorf("the prisoner heard %x", f)
		}
	}
	// A MAC of its choice reaches nothing.
	must(t, ip("link", "set", "eth0", "address", "02:00:00:00:00:66"))
	if out, err := p.c.Exec("ping", "-n", "-c1", "-W1", "192.168.50.1"); err == nil {
		t.Errorf("another MAC pings: %s", out)
	}
	must(t, ip("link", "set", "eth0", "address", p.own.String()))
	hooklab.Pings(t, p.c.Namespace, "192.168.50.1")
	// Nor do addresses.
	must(t, ip("addr", "add", "192.168.50.66/24", "dev", "eth0"))
	if out, err := p.c.Exec("ping", "-n", "-c1", "-W1", "-I", "192.168.50.66", "192.168.50.1"); err == nil {
		t.Errorf("another address pings: %s", out)
	}
	// An MTU of its choice causes no frames that are too long for other stations.
	must(t, ip("link", "set", "eth0", "mtu", "9000"))
	if out, err := p.c.Exec("ping", "-n", "-c1", "-W1", "-M", "do", "-s", "3000", "192.168.50.1"); err == nil {
		t.Errorf("frames over the MTU pass: %s", out)
	}
	// The owner can delete its own interface, which affects no other container.
	must(t, ip("link", "del", "eth0"))
	hooklab.Pings(t, p.victim.Namespace, "192.168.50.1")
	must(t, p.c.Kill())
	p.mustDetachBy(alice, "prisoner")
}

// TestAttackAfterDetach checks that links that the owner kept are useless after the
// detach.
func TestAttackAfterDetach(t *testing.T) {
	p := newPrisoner(t, nil)
	kept := testenv.NewContainer(t)
	_, err := p.c.Exec("ip", "link", "add", "kept", "link", "eth0", "type", "macvlan", "mode", "bridge")
	must(t, err)
	_, err = p.c.Exec("ip", "link", "set", "kept", "netns", fmt.Sprint(kept.Pid))
	must(t, err)
	must(t, p.c.Kill())
	p.mustDetachBy(alice, "prisoner")
	for _, n := range []*testenv.Namespace{p.c.Namespace, kept.Namespace} {
		if links := p.Links(n); len(links) != 1 {
			t.Errorf("%s has %q", n.Name, links)
		}
	}
	if strings.Contains(p.unicast(), p.own.String()) {
		t.Errorf("the parent still takes in %s", p.own)
	}
}
