package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

const redirect = 7 // TC_ACT_REDIRECT

var (
	ownLocal = ownMAC.LinkLocal()
	other4   = netip.MustParseAddr("192.168.50.77")
	other6   = netip.MustParseAddr("fd50::77")
	allNodes = netip.MustParseAddr("ff02::1")
	zero6    = netip.IPv6Unspecified()
)

// A guardKit is the guard's program and map, not attached to a device. Frames of a test run come
// from lo, which has ifindex 1.
type guardKit struct {
	Pass   *ebpf.Program
	guards *ebpf.Map
}

func mustGuardKit(tb testing.TB) *guardKit {
	tb.Helper()
	o := mustLoad(tb, loadGuard)
	return &guardKit{o.Programs[passPin], o.Maps[guardsPin]}
}

func lease() verify.Guard {
	return verify.Guard{
		Inside: 1, Outside: 2, MAC: ownMAC, MTU: 1500,
		Addrs: []netip.Addr{addr4, addr6}, Gateways: []netip.Addr{gw4, gw6},
	}
}

// pass runs the program on a frame and returns the reason for which it was dropped, "" if it was
// passed. flags are those of the guard.
func (k *guardKit) pass(tb testing.TB, flags uint32, frame []byte) string {
	tb.Helper()
	key, v := uint32(1), guardOf(lease())
	v.To, v.Flags = 2, flags
	must(tb, update(k.guards, &key, v, ebpf.UpdateAny))
	ret := mustRet(tb, k.Pass, frame, 0, 0)
	_, err := lookup(k.guards, &key, v, 0)
	must(tb, err)
	why := ""
	for name, n := range byReason(v.Dropped[:]) {
		if why != "" || n != 1 {
			tb.Errorf("%d frames were dropped for %s, another for %s", n, name, why)
		}
		why = name
	}
	if want := map[bool]uint32{true: redirect, false: shot}[why == ""]; ret != want || (why == "") != (v.Frames == 1) {
		tb.Errorf("the program returned %d, passed %d frames, and dropped for %q", ret, v.Frames, why)
	}
	return why
}

// ip4 returns a frame with an IPv4 packet; fragment is the header field with flags and offset.
func ip4(src netip.Addr, proto byte, fragment uint16, payload ...byte) []byte {
	h := make([]byte, 20, 20+len(payload))
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	copy(h[12:], src.AsSlice())
	copy(h[16:], gw4.AsSlice())
	return frame(router, ownMAC, 0x0800, append(h, payload...))
}

func ip6(src netip.Addr, next byte, payload ...byte) []byte {
	h := make([]byte, 40, 40+len(payload))
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], allNodes.AsSlice())
	return frame(ether.MAC{0x33, 0x33, 0, 0, 0, 1}, ownMAC, 0x86dd, append(h, payload...))
}

// icmp6 returns a message of the given type, padded to the length of a redirect.
func icmp6(kind byte) []byte { return append([]byte{kind, 0, 0, 0}, make([]byte, 36)...) }

func udp(src, dst uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	return append(binary.BigEndian.AppendUint16(b, dst), 0, 8, 0, 0)
}

// nd returns a solicitation or advertisement with the bytes of its options.
func nd(kind byte, target netip.Addr, option ...byte) []byte {
	b := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return append(b, option...)
}

func linkLayer(kind byte, mac ether.MAC) []byte { return append([]byte{kind, 1}, mac[:]...) }

func concat(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// edited returns a copy of a frame with one byte changed.
func edited(f []byte, at int, to byte) []byte {
	b := append([]byte{}, f...)
	b[at] = to
	return b
}

// TestGuardOut checks that everything a container may send is passed, and that everything else is
// dropped for the right reason.
func TestGuardOut(t *testing.T) {
	k := mustGuardKit(t)
	mustF := mustFrame(t)
	spoofed := func(p arp.Packet) []byte { return mustARP(t, p) }
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6}
	for _, x := range []struct {
		what  string
		frame []byte
		why   string
	}{
		{"TCP", ip4(addr4, 6, 0, make([]byte, 20)...), ""},
		{"UDP", ip4(addr4, 17, 0, udp(5353, 53)...), ""},
		{"a ping", ip4(addr4, 1, 0, 8, 0, 0, 0), ""},
		{"a fragment", ip4(addr4, 17, 0x2001, udp(67, 68)...), ""},
		{"an ARP probe for its own address", mustF(arp.Probe(ownMAC, addr4)), ""},
		{"an ARP probe for its gateway", mustF(arp.Probe(ownMAC, gw4)), ""},
		{"an ARP request", mustF(arp.Request(ownMAC, addr4, other4)), ""},
		{"a gratuitous ARP", mustF(arp.Announce(ownMAC, addr4)), ""},
		{"an ARP reply", spoofed(arp.Packet{Destination: router, Source: ownMAC, Reply: true, Sender: ownMAC, SenderIP: addr4,
			Target: router, TargetIP: gw4}), ""},
		{"TCP over IPv6", ip6(addr6, 6, make([]byte, 20)...), ""},
		{"UDP over IPv6", ip6(addr6, 17, udp(5353, 53)...), ""},
		{"a ping over IPv6", ip6(addr6, 58, icmp6(128)...), ""},
		{"from its link-local address", ip6(ownLocal, 58, icmp6(128)...), ""},
		{"a fragment of TCP over IPv6", ip6(addr6, 44, 6, 0, 0, 1, 0, 0, 0, 1), ""},
		{"a later fragment of UDP over IPv6", ip6(addr6, 44, concat([]byte{17, 0, 0, 8, 0, 0, 0, 1}, udp(547, 546))...), ""},
		{"DAD", mustF(ndp.Probe(ownMAC, addr6)), ""},
		{"DAD of its link-local address, with a nonce", ip6(zero6, 58, nd(135, ownLocal, nonce...)...), ""},
		{"a solicitation for its gateway, with no address yet", mustF(ndp.Probe(ownMAC, gw6)), ""},
		{"a solicitation", mustF(ndp.Solicit(ownMAC, addr6, other6)), ""},
		{"an unsolicited advertisement", mustF(ndp.Announce(ownMAC, addr6)), ""},
		{"an advertisement of its link-local address", mustF(ndp.Announce(ownMAC, ownLocal)), ""},
		{"a router solicitation", ip6(ownLocal, 58, concat([]byte{133, 0, 0, 0, 0, 0, 0, 0}, linkLayer(1, ownMAC))...), ""},
		{"an MLD report", ip6(ownLocal, 0, concat([]byte{58, 0, 5, 2, 0, 0, 1, 0}, icmp6(143))...), ""},

		{"ARP cut off", mustF(arp.Announce(ownMAC, addr4))[:40], "short"},
		{"UDP cut off", ip4(addr4, 17, 0, 0, 67), "short"},
		{"a fragment header cut off", ip6(addr6, 44, 6, 0, 0, 1), "short"},
		{"ICMPv6 shorter than its length field", edited(ip6(addr6, 58, icmp6(128)...), 18, 9), "short"},
		{"over the MTU", ip4(addr4, 6, 0, make([]byte, 1500)...), "long"},
		{"a tag in the frame", tagged(ip4(addr4, 6, 0), vlan50...), "tag"},
		{"QinQ tags in the frame", tagged(ip4(addr4, 6, 0), qinq...), "tag"},
		{"a tag of VID 0", tagged(ip4(addr4, 6, 0), ether.Tag{TPID: ether.Dot1Q}), "tag"},
		{"a tag type from before 802.1ad", frame(router, ownMAC, 0x9100, make([]byte, 46)), "tag"},
		{"another source MAC", frame(router, sibling, 0x0800, make([]byte, 46)), "source-mac"},
		{"the gateway's MAC", frame(ownMAC, router, 0x0800, make([]byte, 46)), "source-mac"},
		{"a multicast MAC", frame(router, broadcast, 0x0800, make([]byte, 46)), "source-mac"},
		{"spanning tree", frame(ether.MAC{1, 0x80, 0xc2}, ownMAC, 38, make([]byte, 46)), "protocol"},
		{"LLDP", frame(ether.MAC{1, 0x80, 0xc2, 0, 0, 0xe}, ownMAC, 0x88cc, make([]byte, 46)), "protocol"},
		{"a pause", frame(ether.MAC{1, 0x80, 0xc2, 0, 0, 1}, ownMAC, 0x8808, make([]byte, 46)), "protocol"},
		{"RARP", frame(broadcast, ownMAC, 0x8035, make([]byte, 46)), "protocol"},
		{"PPPoE", frame(broadcast, ownMAC, 0x8863, make([]byte, 46)), "protocol"},

		{"EIGRP", ip4(addr4, 88, 0, make([]byte, 20)...), "router"},
		{"OSPF", ip4(addr4, 89, 0, make([]byte, 20)...), "router"},
		{"PIM", ip4(addr4, 103, 0, make([]byte, 20)...), "router"},
		{"VRRP", ip4(addr4, 112, 0, make([]byte, 20)...), "router"},
		{"VRRP in a fragment", ip4(addr4, 112, 0x2001, make([]byte, 20)...), "router"},
		{"VRRP over IPv6", ip6(addr6, 112, make([]byte, 20)...), "hidden"},
		{"RIP", ip4(addr4, 17, 0, udp(520, 520)...), "router"},
		{"HSRP", ip4(addr4, 17, 0, udp(1985, 1985)...), "router"},
		{"GLBP", ip4(addr4, 17, 0, udp(3222, 3222)...), "router"},
		{"RIPng", ip6(ownLocal, 17, udp(521, 521)...), "router"},
		{"HSRP over IPv6", ip6(ownLocal, 17, udp(2029, 2029)...), "router"},

		{"ARP for another station's address", mustF(arp.Announce(ownMAC, other4)), "arp"},
		{"ARP for the gateway's address", mustF(arp.Announce(ownMAC, gw4)), "arp"},
		{"ARP with another station's MAC",
			spoofed(arp.Packet{Destination: broadcast, Source: ownMAC, Sender: router, SenderIP: addr4,
				TargetIP: addr4}), "arp"},
		{"an ARP reply for the gateway",
			spoofed(arp.Packet{Destination: sibling, Source: ownMAC, Reply: true, Sender: ownMAC, SenderIP: gw4, Target: sibling,
				TargetIP: other4}), "arp"},
		{"a probe for another station's address", mustF(arp.Probe(ownMAC, other4)), "arp"},
		{"a reply from 0.0.0.0", spoofed(arp.Packet{Destination: broadcast, Source: ownMAC, Reply: true, Sender: ownMAC,
			SenderIP: netip.IPv4Unspecified(), TargetIP: addr4}), "arp"},
		{"ARP of another hardware", edited(mustF(arp.Announce(ownMAC, addr4)), 15, 6), "arp"},
		{"ARP of another operation", edited(mustF(arp.Announce(ownMAC, addr4)), 21, 3), "arp"},

		{"another station's IPv4 address", ip4(other4, 6, 0, make([]byte, 20)...), "ipv4"},
		{"0.0.0.0", ip4(netip.IPv4Unspecified(), 17, 0, udp(68, 67)...), "ipv4"},
		{"a header of 16 bytes", edited(ip4(addr4, 6, 0, make([]byte, 20)...), 14, 0x44), "ipv4"},
		{"an IPv6 version field in an IPv4 frame", edited(ip4(addr4, 6, 0, make([]byte, 20)...), 14, 0x65), "ipv4"},
		{"a DHCP client's request", ip4(addr4, 17, 0, udp(68, 67)...), "dhcp"},
		{"a DHCP client's request from another port", ip4(addr4, 17, 0, udp(1068, 67)...), "dhcp"},
		{"a DHCP offer", ip4(addr4, 17, 0, udp(67, 68)...), "dhcp"},
		{"a DHCP offer from another port", ip4(addr4, 17, 0, udp(1067, 68)...), "dhcp"},
		{"a DHCP offer in a first fragment", ip4(addr4, 17, 0x2000, udp(67, 68)...), "dhcp"},
		{"a DHCP offer after IP options",
			frame(router, ownMAC, 0x0800, concat(edited(ip4(addr4, 17, 0), 14, 0x46)[14:], make([]byte, 4),
				udp(67, 68))), "dhcp"},
		{"an ICMP redirect", ip4(addr4, 1, 0, 5, 1, 0, 0), "router"},
		{"an ICMP router advertisement", ip4(addr4, 1, 0, 9, 0, 0, 0), "router"},
		{"an IGMP query", ip4(addr4, 2, 0, 0x11, 0, 0, 0), "router"},

		{"another station's IPv6 address", ip6(other6, 6, make([]byte, 20)...), "ipv6"},
		{"another station's link-local address", ip6(gw6, 6, make([]byte, 20)...), "ipv6"},
		{"TCP from ::", ip6(zero6, 6, make([]byte, 20)...), "ipv6"},
		{"a ping from ::", ip6(zero6, 58, icmp6(128)...), "ipv6"},
		{"its IPv4 address, IPv4-mapped", ip6(netip.AddrFrom16(addr4.As16()), 6, make([]byte, 20)...), "ipv6"},
		{"a DHCPv6 client's request", ip6(ownLocal, 17, udp(546, 547)...), "dhcp"},
		{"a DHCPv6 client's request in a first fragment",
			ip6(addr6, 44, concat([]byte{17, 0, 0, 1, 0, 0, 0, 1}, udp(546, 547))...), "dhcp"},
		{"a DHCPv6 answer", ip6(ownLocal, 17, udp(547, 546)...), "dhcp"},
		{"a DHCPv6 answer in a first fragment", ip6(addr6, 44, concat([]byte{17, 0, 0, 1, 0, 0, 0, 1}, udp(547, 546))...),
			"dhcp"},
		{"a router advertisement", ip6(ownLocal, 58, icmp6(134)...), "router"},
		{"a redirect", ip6(ownLocal, 58, icmp6(137)...), "router"},
		{"an MLD query", ip6(ownLocal, 58, icmp6(130)...), "router"},
		{"inverse ND", ip6(ownLocal, 58, icmp6(141)...), "router"},
		{"a multicast router's advertisement", ip6(ownLocal, 58, icmp6(151)...), "router"},
		{"an advertisement of another station's address", mustF(ndp.Announce(ownMAC, other6)), "ipv6"},
		{"an advertisement of another station's address, from its own",
			ip6(addr6, 58, nd(136, other6, linkLayer(2, ownMAC)...)...), "nd"},
		{"an advertisement of the gateway's address", ip6(ownLocal, 58, nd(136, gw6, linkLayer(2, ownMAC)...)...), "nd"},
		{"an advertisement with another station's MAC", ip6(addr6, 58, nd(136, addr6, linkLayer(2, router)...)...), "nd"},
		{"an advertisement with two MACs",
			ip6(addr6, 58, nd(136, addr6, concat(linkLayer(2, ownMAC), linkLayer(2, router))...)...), "nd"},
		{"an advertisement with another MAC after a nonce",
			ip6(addr6, 58, nd(136, addr6, concat(nonce, linkLayer(2, router))...)...), "nd"},
		{"an advertisement with four options",
			ip6(addr6, 58, nd(136, addr6, concat(nonce, nonce, nonce, linkLayer(2, router))...)...), "nd"},
		{"an advertisement with a long option",
			ip6(addr6, 58, nd(136, addr6, append([]byte{2, 2}, make([]byte, 14)...)...)...), "nd"},
		{"an advertisement with an option of length 0", ip6(addr6, 58, nd(136, addr6, 2, 0, 0, 0, 0, 0, 0, 0)...), "nd"},
		{"an advertisement with half an option", ip6(addr6, 58, nd(136, addr6, 2, 1, 0, 0)...), "nd"},
		{"a solicitation with another station's MAC",
			mustND(t, ndp.Message{Destination: router, Source: ownMAC, From: addr6, To: allNodes, Target: gw6,
				LinkLayer: sibling}), "nd"},
		{"DAD of another station's address", mustF(ndp.Probe(ownMAC, other6)), "nd"},
		{"DAD with a MAC", ip6(zero6, 58, nd(135, addr6, linkLayer(1, ownMAC)...)...), "nd"},
		{"a router solicitation with another station's MAC",
			ip6(ownLocal, 58, concat([]byte{133, 0, 0, 0, 0, 0, 0, 0}, linkLayer(1, router))...), "nd"},
		{"ND with a hop limit of 64", edited(mustF(ndp.Announce(ownMAC, addr6)), 21, 64), "nd"},
		{"ND in a fragment", ip6(addr6, 44, concat([]byte{58, 0, 0, 1, 0, 0, 0, 1}, nd(136, other6))...), "hidden"},
		{"a fragment with another extension header",
			ip6(addr6, 44, concat([]byte{60, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 8))...), "hidden"},
		{"ND after destination options", ip6(addr6, 60, concat([]byte{58, 0, 1, 4, 0, 0, 0, 0}, icmp6(134))...), "hidden"},
		{"ND after hop-by-hop options", ip6(addr6, 0, concat([]byte{58, 0, 1, 4, 0, 0, 0, 0}, nd(136, other6))...), "hidden"},
		{"ND after two extension headers",
			ip6(addr6, 0, concat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{58, 0, 1, 4, 0, 0, 0, 0}, icmp6(134))...), "hidden"},
		{"long hop-by-hop options", ip6(addr6, 0, concat([]byte{58, 1, 1, 12}, make([]byte, 12), icmp6(134))...), "hidden"},
		{"ND after an authentication header", ip6(addr6, 51, concat([]byte{58, 1}, make([]byte, 10), icmp6(134))...),
			"hidden"},
		{"a routing header", ip6(addr6, 43, make([]byte, 24)...), "hidden"},
	} {
		if why := k.pass(t, guardOutbound, x.frame); why != x.why {
			t.Errorf("%s: dropped for %q, want %q", x.what, why, x.why)
		}
	}
}

// TestGuardAsks checks that the service can ask DHCPv6 servers from an interface behind a guarded parent, and
// that no answer of a server is passed there.
func TestGuardAsks(t *testing.T) {
	k := mustGuardKit(t)
	for why, f := range map[string][]byte{
		"": ip6(ownLocal, 17, udp(546, 547)...), "dhcp": ip6(ownLocal, 17, udp(547, 546)...),
	} {
		if got := k.pass(t, guardOutbound|guardAsks, f); got != why {
			t.Errorf("dropped for %q, want %q", got, why)
		}
	}
}

func TestGuardIn(t *testing.T) {
	k := mustGuardKit(t)
	for _, x := range []struct {
		what  string
		frame []byte
		why   string
	}{
		{"to its MAC", data(ownMAC, router), ""},
		{"to broadcast", data(broadcast, router), ""},
		{"to all nodes", data(ether.MAC{0x33, 0x33, 0, 0, 0, 1}, router), ""},
		{"to the solicited-node group of its address", data(ndp.SolicitedNode(addr6), router), ""},
		{"to the solicited-node group of its link-local address", data(ndp.SolicitedNode(ownLocal), router), ""},
		{"to a sibling", data(sibling, router), "destination"},
		{"to the solicited-node group of another address", data(ndp.SolicitedNode(other6), router), "destination"},
		{"to the solicited-node group of an empty slot", data(ether.MAC{0x33, 0x33, 0xff}, router), "destination"},
		{"to all routers", data(ether.MAC{0x33, 0x33, 0, 0, 0, 2}, router), "destination"},
		{"to an IPv4 group", data(ether.MAC{1, 0, 0x5e, 0, 0, 0xfb}, router), "destination"},
		{"its own, reflected", data(broadcast, ownMAC), "echo"},
		{"tagged", tagged(data(ownMAC, router), vlan50...), "tag"},
	} {
		if why := k.pass(t, 0, x.frame); why != x.why {
			t.Errorf("%s: dropped for %q, want %q", x.what, why, x.why)
		}
	}
}

// TestGuardAutoconf checks that a permit with addresses from routers is for those that the kernel makes
// from the MAC, with any prefix, and for no other address of a prefix.
func TestGuardAutoconf(t *testing.T) {
	k := mustGuardKit(t)
	for addr, why := range map[netip.Addr]string{
		ending("2001:db8::"): "", ending("fd77::"): "", ending("fc00::"): "", ending("3fff::"): "",
		ending("::"): "ipv6", ending("4000::"): "ipv6", ending("fec0::"): "ipv6", ending("fe80:0:0:1::"): "ipv6",
		ending("ff02::"): "ipv6", sibling.LinkLocal(): "ipv6", netip.MustParseAddr("2001:db8::9"): "ipv6",
		ending("fd77::").Next(): "ipv6",
	} {
		nd := map[string]string{"ipv6": "nd"}[why]
		frames := map[string]struct {
			frame []byte
			why   string
		}{
			"TCP":              {ip6(addr, 6, make([]byte, 20)...), why},
			"DAD":              {mustFrame(t)(ndp.Probe(ownMAC, addr)), nd},
			"an advertisement": {ip6(ownLocal, 58, nd136(addr)...), nd},
		}
		for what, f := range frames {
			if got := k.pass(t, guardOutbound|guardAutoconf, f.frame); got != f.why {
				t.Errorf("%s of %s: dropped for %q, want %q", what, addr, got, f.why)
			}
			if got := k.pass(t, guardOutbound, f.frame); got == "" {
				t.Errorf("without addresses from routers, %s of %s was passed", what, addr)
			}
		}
	}
}

// ending returns the address of a prefix that ends as the link-local address does.
func ending(prefix string) netip.Addr {
	a, local := netip.MustParseAddr(prefix).As16(), ownLocal.As16()
	copy(a[8:], local[8:])
	return netip.AddrFrom16(a)
}

// TestGuardPrefixes checks that a container can use addresses of 16 prefixes, and of another one after one of
// these was not used for some time.
func TestGuardPrefixes(t *testing.T) {
	k := mustGuardKit(t)
	key, v := uint32(1), guardOf(lease())
	v.To, v.Flags = 2, guardOutbound|guardAutoconf
	must(t, update(k.guards, &key, v, ebpf.UpdateAny))
	wants := func(i int, frame func(netip.Addr) []byte, want uint32) {
		t.Helper()
		addr := ending(fmt.Sprintf("fd77:0:0:%x::", i))
		if ret := mustRet(t, k.Pass, frame(addr), 0, 0); ret != want {
			t.Errorf("%s: the program returned %d, want %d", addr, ret, want)
		}
	}
	tcp := func(addr netip.Addr) []byte { return ip6(addr, 6, make([]byte, 20)...) }
	probe := func(addr netip.Addr) []byte { return mustFrame(t)(ndp.Probe(ownMAC, addr)) }
	for i := range len(v.Prefixes) {
		wants(i, probe, redirect)
	}
	wants(16, tcp, shot)
	wants(17, probe, shot)
	wants(18, func(addr netip.Addr) []byte { return ip6(ownLocal, 58, nd136(addr)...) }, shot)
	for i := range len(v.Prefixes) {
		wants(i, tcp, redirect)
	}
	_, err := lookup(k.guards, &key, v, 0)
	must(t, err)
	v.Prefixes[7].Until = 1
	must(t, update(k.guards, &key, v, ebpf.UpdateAny))
	wants(16, tcp, redirect)
	wants(7, tcp, shot)
	wants(0, tcp, redirect)
	wants(16, tcp, redirect)
}

// nd136 returns an advertisement of an address.
func nd136(target netip.Addr) []byte { return nd(136, target, linkLayer(2, ownMAC)...) }

// TestGuardSegments checks that the segments of an unsegmented buffer are compared with the MTU.
func TestGuardSegments(t *testing.T) {
	k := mustGuardKit(t)
	key, v := uint32(1), guardOf(lease())
	v.To, v.Flags = 2, guardOutbound
	for size, want := range map[uint32]uint32{1448: redirect, 1480: shot} {
		must(t, update(k.guards, &key, v, ebpf.UpdateAny))
		if ret := mustRet(t, k.Pass, ip4(addr4, 6, 0, make([]byte, 20)...), 2, size); ret != want {
			t.Errorf("segments of %d: %d, want %d", size, ret, want)
		}
	}
}

// TestGuardUnknown checks that frames from an unknown link are dropped.
func TestGuardUnknown(t *testing.T) {
	k := mustGuardKit(t)
	if ret := mustRet(t, k.Pass, ip4(addr4, 6, 0), 0, 0); ret != shot {
		t.Errorf("the program returned %d", ret)
	}
}

// FuzzGuard checks the frames that are passed with a few simple rules.
func FuzzGuard(f *testing.F) {
	k := mustGuardKit(f)
	for _, seed := range [][]byte{
		ip4(addr4, 6, 0, make([]byte, 20)...), ip6(addr6, 58, icmp6(134)...), mustFrame(f)(arp.Announce(ownMAC, addr4)),
		mustFrame(f)(ndp.Announce(ownMAC, addr6)), mustFrame(f)(ndp.Probe(ownMAC, addr6)),
		tagged(ip4(addr4, 6, 0), vlan50...),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 54 || len(b) > 2000 {
			return // a test run rejects an IP packet that is shorter than its header
		}
		if k.pass(t, guardOutbound, b) != "" {
			return
		}
		proto := binary.BigEndian.Uint16(b[12:])
		switch {
		case ether.MAC(b[6:12]) != ownMAC:
			t.Errorf("passed from %x", b[6:12])
		case proto == 0x0806:
			if ether.MAC(b[22:28]) != ownMAC || b[28] != 0 && netip.AddrFrom4([4]byte(b[28:32])) != addr4 {
				t.Errorf("passed ARP %x", b[14:])
			}
		case proto == 0x0800:
			if netip.AddrFrom4([4]byte(b[26:30])) != addr4 {
				t.Errorf("passed IPv4 %x", b[14:])
			}
		case proto == 0x86dd:
			from := netip.AddrFrom16([16]byte(b[22:38]))
			if from != addr6 && from != ownLocal && from != zero6 {
				t.Errorf("passed IPv6 %x", b[14:])
			}
			if b[20] == 58 && (b[54] == 134 || b[54] == 137) {
				t.Errorf("passed a router's message %x", b[14:])
			}
		default:
			t.Errorf("passed protocol %#04x", proto)
		}
	})
}
