package bpf

import (
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

var (
	local6 = netip.MustParseAddr("fe80::99")
	nodes  = netip.IPv6LinkLocalAllNodes()
)

// watchedEndpoint returns the endpoint that the tests below watch.
func watchedEndpoint() verify.Endpoint {
	return verify.Endpoint{
		MAC: ownMAC, Tags: vlan50, Attachment: verify.ID{1}, Enforce: true,
		Addrs: []netip.Addr{addr4, addr6}, Gateways: []netip.Addr{gw4, gw6},
	}
}

func reply(tb testing.TB, from ether.MAC) []byte {
	tb.Helper()
	return mustARP(tb, arp.Packet{Destination: ownMAC, Source: from, Reply: true, Sender: from, SenderIP: gw4,
		Target: ownMAC, TargetIP: addr4})
}

func advert(tb testing.TB, to ether.MAC, from ether.MAC) []byte {
	tb.Helper()
	return mustND(tb, ndp.Message{Destination: to, Source: from, From: gw6, To: nodes, Target: gw6, Advert: true,
		LinkLayer: from})
}

// TestAsked checks which outbound frames count as a question for which gateway.
func TestAsked(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	frames := map[string]struct {
		frame []byte
		index int // of the gateway that it asks for; -1: none
	}{
		"ARP probe":       {mustFrame(t)(arp.Probe(ownMAC, gw4)), 0},
		"ARP request":     {mustFrame(t)(arp.Request(ownMAC, addr4, gw4)), 0},
		"NS from ::":      {mustFrame(t)(ndp.Probe(ownMAC, gw6)), 1},
		"NS":              {mustFrame(t)(ndp.Solicit(ownMAC, addr6, gw6)), 1},
		"ARP for another": {mustFrame(t)(arp.Probe(ownMAC, addr4)), -1},
		"ARP reply": {mustARP(t, arp.Packet{Destination: router, Source: ownMAC, Reply: true, Sender: ownMAC,
			SenderIP: addr4, Target: router, TargetIP: gw4}), -1},
		"NA":                {mustFrame(t)(ndp.Announce(ownMAC, gw6)), -1},
		"another's request": {mustFrame(t)(arp.Probe(claimant, gw4)), -1},
	}
	for name, f := range frames {
		for _, tags := range []ether.Tags{vlan50, vlan60, nil} {
			before := k.mustEvidence(t, e)
			start := verify.Now()
			k.out(t, tagged(f.frame, tags...))
			end := verify.Now()
			after := k.mustEvidence(t, e)
			for i, g := range after.Gateways {
				want := before.Gateways[i].Asked
				if i == f.index {
					want = verify.Sighting{At: g.Asked.At, Count: want.Count + 1, Tags: tags, InPacket: len(tags) > 0}
				}
				if !equal(g.Asked, want) || i == f.index && (g.Asked.At < start || g.Asked.At > end) {
					t.Errorf("%s, %s: gateway %s asked %+v, want %+v", name, tags, g.Addr, g.Asked, want)
				}
			}
		}
	}
}

func equal(a, b verify.Sighting) bool {
	return a.At == b.At && a.Count == b.Count && a.InPacket == b.InPacket && a.Tags.Equal(b.Tags)
}

// TestReplies sends answers one after the other, and checks after each which MAC answered last,
// with which tags, and which MAC answered before.
func TestReplies(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	vrrp := mustARP(t, arp.Packet{Destination: ownMAC, Source: router2, Reply: true, Sender: router, SenderIP: gw4,
		Target: ownMAC, TargetIP: addr4})
	bare := mustND(t, ndp.Message{Destination: ownMAC, Source: router, From: gw6, To: addr6, Target: gw6, Advert: true})
	for _, c := range []struct {
		name       string
		frame      []byte
		tags       ether.Tags
		index      int    // of the gateway
		count      uint32 // answers about this gateway so far
		mac, other ether.MAC
	}{
		{"ARP reply", reply(t, router), vlan50, 0, 1, router, ether.MAC{}},
		{"again", reply(t, router), vlan50, 0, 2, router, ether.MAC{}},
		{"under another tag", reply(t, router), vlan60, 0, 3, router, ether.MAC{}},
		{"with no tag", reply(t, router), nil, 0, 4, router, ether.MAC{}},
		{"another answers", reply(t, router2), vlan50, 0, 5, router2, router},
		{"its MAC is not the frame's", vrrp, vlan50, 0, 6, router, router2},
		{"NA to the endpoint", advert(t, ownMAC, router), vlan50, 1, 1, router, ether.MAC{}},
		{"NA to the endpoint under another tag", advert(t, ownMAC, router), vlan60, 1, 2, router, ether.MAC{}},
		{"NA to the endpoint with no option", bare, vlan50, 1, 3, router, ether.MAC{}},
		{"NA to all nodes", advert(t, broadcast, router2), vlan50, 1, 4, router2, router},
		{"and again", advert(t, broadcast, router2), vlan50, 1, 5, router2, router},
	} {
		start := verify.Now()
		k.in(t, tagged(c.frame, c.tags...))
		end := verify.Now()
		g := k.mustEvidence(t, e).Gateways[c.index]
		want := verify.Sighting{At: g.Reply.At, Count: c.count, Tags: c.tags, InPacket: len(c.tags) > 0}
		if !equal(g.Reply, want) || g.Reply.At < start || g.Reply.At > end || g.MAC != c.mac || g.Other != c.other {
			t.Errorf("%s: %+v, want %+v from %s, and %s before", c.name, g, want, c.mac, c.other)
		}
	}
}

// TestNoReplies sends frames that are not answers about a gateway of the endpoint.
func TestNoReplies(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	for name, frame := range map[string][]byte{
		"request": mustFrame(t)(arp.Request(router, gw4, addr4)),
		"about another": mustARP(t, arp.Packet{Destination: ownMAC, Source: router, Reply: true, Sender: router,
			SenderIP: addr4.Next().Next(), Target: ownMAC, TargetIP: addr4}),
		"to another": mustARP(t, arp.Packet{Destination: claimant, Source: router, Reply: true, Sender: router,
			SenderIP: gw4, Target: claimant, TargetIP: addr4}),
		"NS":                  mustFrame(t)(ndp.Solicit(router, gw6, addr6)),
		"NA about another":    mustFrame(t)(ndp.Announce(router, local6)),
		"NA through a router": forwarded(advert(t, ownMAC, router)),
	} {
		k.in(t, tagged(frame, vlan50...))
		for _, g := range k.mustEvidence(t, e).Gateways {
			if g.Reply.Count != 0 || !g.MAC.IsZero() {
				t.Errorf("%s counts as a reply: %+v", name, g)
			}
		}
	}
}

// forwarded makes of an ND frame one that was forwarded by a router, which receivers must ignore
// (RFC 4861 §7.1).
func forwarded(frame []byte) []byte {
	frame[14+7]--
	return frame
}

// TestAnswersOnOtherTags has the gateway answer to all nodes under a tag that no endpoint expects.
// Such an answer counts only if the last question got no answer under the right tag.
func TestAnswersOnOtherTags(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.in(t, tagged(advert(t, broadcast, router2), vlan60...))
	must(t, k.expect(e))
	ask := tagged(mustFrame(t)(ndp.Probe(ownMAC, gw6)), vlan50...)
	check := func(when string, tags ether.Tags, mac ether.MAC, count uint32) {
		t.Helper()
		g := k.mustEvidence(t, e).Gateways[1]
		if !g.Reply.Tags.Equal(tags) || g.MAC != mac || g.Reply.Count != count {
			t.Errorf("%s: %+v, want an answer from %s under %s, count %d", when, g, mac, tags, count)
		}
	}
	check("an answer before the watch began", nil, ether.MAC{}, 0)
	k.in(t, tagged(advert(t, broadcast, router2), vlan60...))
	k.out(t, ask)
	check("an answer before the question", nil, ether.MAC{}, 0)
	k.in(t, tagged(advert(t, broadcast, router), vlan50...))
	k.in(t, tagged(advert(t, broadcast, router2), vlan60...))
	check("right and wrong", vlan50, router, 1)
	k.out(t, ask)
	k.in(t, tagged(advert(t, broadcast, router2), vlan60...))
	check("wrong alone", vlan60, router2, 2)
	k.out(t, ask)
	k.in(t, advert(t, broadcast, router2))
	check("wrong alone, untagged", nil, router2, 2)

	// If an endpoint expects that tag, the answer is to that endpoint.
	o := verify.Endpoint{MAC: sibling, Tags: vlan60, Gateways: []netip.Addr{gw6}}
	must(t, k.expect(o))
	k.out(t, ask)
	k.in(t, tagged(advert(t, broadcast, router2), vlan60...))
	check("another network's", vlan50, router, 1)
	if g := k.mustEvidence(t, o).Gateways[0]; g.MAC != router2 || g.Reply.Count != 1 {
		t.Errorf("the other network's gateway: %+v", g)
	}
}

// TestAnswersToAll sends more answers to all nodes than are kept: the last few are.
func TestAnswersToAll(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	for range 20 {
		k.in(t, tagged(advert(t, broadcast, router), vlan50...))
	}
	k.in(t, tagged(advert(t, broadcast, router2), vlan50...))
	if g := k.mustEvidence(t, e).Gateways[1]; g.MAC != router2 || g.Other != router || g.Reply.Count != 8 {
		t.Errorf("after 21 answers: %+v, want the last from %s, %s before, 8 kept", g, router2, router)
	}
}

// TestClaimants checks which inbound frames claim which address, on the endpoint's VLAN only.
func TestClaimants(t *testing.T) {
	claims := map[string]struct {
		frame []byte
		addr  netip.Addr // zero: no claim
	}{
		"ARP probe":        {mustFrame(t)(arp.Probe(claimant, addr4)), netip.Addr{}},
		"ARP announcement": {mustFrame(t)(arp.Announce(claimant, addr4)), addr4},
		"ARP request":      {mustFrame(t)(arp.Request(claimant, addr4, gw4)), addr4},
		"ARP reply": {mustARP(t,
			arp.Packet{Destination: ownMAC, Source: claimant, Reply: true, Sender: claimant, SenderIP: addr4, Target: ownMAC,
				TargetIP: addr4}), addr4},
		"ARP reply to another": {mustARP(t,
			arp.Packet{Destination: sibling, Source: claimant, Reply: true, Sender: claimant, SenderIP: addr4, Target: sibling,
				TargetIP: gw4}), addr4},
		"NS from ::": {mustFrame(t)(ndp.Probe(claimant, addr6)), netip.Addr{}},
		"NS":         {mustFrame(t)(ndp.Solicit(claimant, addr6, gw6)), addr6},
		"NA":         {mustFrame(t)(ndp.Announce(claimant, addr6)), addr6},
		"NA with no option": {mustND(t, ndp.Message{Destination: broadcast, Source: claimant, From: addr6,
			To: nodes, Target: addr6, Advert: true}), addr6},
		"ARP request for the endpoint": {mustFrame(t)(arp.Request(claimant, gw4, addr4)), netip.Addr{}},
		"NS for the endpoint":          {mustFrame(t)(ndp.Solicit(claimant, gw6, addr6)), netip.Addr{}},
		"another address":              {mustFrame(t)(arp.Announce(claimant, addr4.Next())), netip.Addr{}},
	}
	for name, c := range claims {
		k, e := mustKit(t), watchedEndpoint()
		must(t, k.expect(e))
		for _, tags := range []ether.Tags{nil, vlan60, {tag50, tag60}} {
			k.in(t, tagged(c.frame, tags...))
		}
		if got := k.mustEvidence(t, e).Claimants; len(got) != 0 {
			t.Errorf("%s on other VLANs: %+v", name, got)
		}
		start := verify.Now()
		k.in(t, tagged(c.frame, vlan50...))
		k.in(t, tagged(c.frame, vlan50...))
		got := k.mustEvidence(t, e).Claimants
		if !c.addr.IsValid() {
			if len(got) != 0 {
				t.Errorf("%s: %+v, want no claimant", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0] != (verify.Claimant{Addr: c.addr, MAC: claimant, At: got[0].At, Count: 2}) ||
			got[0].At < start {
			t.Errorf("%s: %+v, want %s twice for %s", name, got, claimant, c.addr)
		}
	}
}

// TestCutShort runs the program over every beginning of each kind of frame: it must not read beyond
// the end.
func TestCutShort(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.expect(e))
	for name, frame := range map[string][]byte{
		"ARP": tagged(mustFrame(t)(arp.Announce(claimant, addr4)), vlan50...)[:18+28], // the rest is padding
		"ND":  tagged(mustFrame(t)(ndp.Probe(claimant, addr6)), vlan50...),
		"NA": tagged(mustND(t, ndp.Message{Destination: ownMAC, Source: router, From: gw6, To: addr6, Target: gw6,
			Advert: true}), vlan50...),
	} {
		for n := 15; n < len(frame); n++ {
			k.in(t, frame[:n])
			ev := k.mustEvidence(t, e)
			if len(ev.Claimants) != 0 || ev.Gateways[0].Reply.Count+ev.Gateways[1].Reply.Count != 0 {
				t.Fatalf("%d of the %d bytes of %s count as a whole frame: %+v", n, len(frame), name, ev)
			}
		}
	}
}
