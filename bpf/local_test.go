package bpf

import (
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

var parent = ether.MAC{0x52, 0x54, 0, 0, 0, 1}

// probeAnswer returns an answer to the host's own probe for addr4, from the endpoint's MAC.
func probeAnswer(tb testing.TB) []byte {
	tb.Helper()
	return mustARP(tb, arp.Packet{Destination: parent, Source: ownMAC, Reply: true, Sender: ownMAC, SenderIP: addr4,
		Target: parent, TargetIP: netip.IPv4Unspecified()})
}

// countKinds returns the number of frames of each kind of event.
func (k *kit) countKinds(tb testing.TB) map[verify.Kind]uint64 {
	tb.Helper()
	kinds := map[verify.Kind]uint64{}
	for _, e := range k.mustEvents(tb) {
		kinds[e.Kind] += e.Frames
	}
	return kinds
}

// TestDuplicateMAC has another station use the MAC of an endpoint: its frames arrive from the wire,
// but the endpoint has not sent them.
func TestDuplicateMAC(t *testing.T) {
	for name, frame := range map[string][]byte{
		"announcement":       mustFrame(t)(arp.Announce(ownMAC, addr4)),
		"request":            mustFrame(t)(arp.Request(ownMAC, addr4.Next(), gw4)),
		"probe":              mustFrame(t)(arp.Probe(ownMAC, addr4)),
		"NA":                 mustFrame(t)(ndp.Announce(ownMAC, addr6)),
		"DAD":                mustFrame(t)(ndp.Probe(ownMAC, addr6)),
		"other broadcast":    frame(broadcast, ownMAC, 0x0800, make([]byte, 46)),
		"answer to the host": probeAnswer(t),
	} {
		k, e := mustKit(t), watchedEndpoint()
		must(t, k.setLocals(verify.Locals{Parents: []ether.MAC{parent}}))
		must(t, k.expect(e))
		k.in(t, tagged(frame, tag60))
		k.in(t, frame)
		if got := k.mustEvidence(t, e).Claimants; len(got) != 0 {
			t.Errorf("%s on other VLANs: %+v", name, got)
		}
		start := verify.Now()
		k.in(t, tagged(frame, tag50))
		got := k.mustEvidence(t, e).Claimants
		if len(got) != 1 || got[0] != (verify.Claimant{Addr: addr4, MAC: ownMAC, At: got[0].At, Count: 1, SameMAC: true}) ||
			got[0].At < start {
			t.Errorf("%s: %+v, want a duplicate of %s", name, got, ownMAC)
		}
		k.mustHaveEvent(t, start, verify.Event{Kind: verify.SameMAC, Frames: 1, Tags: vlan50, InPacket: true, MAC: ownMAC,
			EndpointMAC: ownMAC})
		if ev := k.mustEvidence(t, e); len(ev.VLANs) != 0 || ev.Returned.Count != 0 {
			t.Errorf("%s: heard %+v, returned %+v: want neither", name, ev.VLANs, ev.Returned)
		}
	}
}

// TestReturned checks that a switch port that returns frames does not look like a duplicate of
// their sender.
func TestReturned(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.setLocals(verify.Locals{Parents: []ether.MAC{parent}}))
	must(t, k.expect(e))
	frames := [][]byte{
		mustFrame(t)(arp.Announce(ownMAC, addr4)), mustFrame(t)(ndp.Announce(ownMAC, addr6)),
		frame(broadcast, ownMAC, 0x0800, make([]byte, 46)), mustFrame(t)(arp.Probe(parent, addr4)),
	}
	start := verify.Now()
	for _, f := range frames {
		k.out(t, tagged(f, tag50))
		k.in(t, tagged(f, tag50))
		k.in(t, tagged(f, tag50)) // a loop returns it again and again
	}
	// Behind such a port, a frame that the program did not see leave also counts as returned.
	k.in(t, tagged(mustFrame(t)(arp.Request(ownMAC, addr4, gw4)), tag50))
	ev := k.mustEvidence(t, e)
	if len(ev.Claimants) != 0 || ev.Returned.Count != 7 || ev.Returned.At < start || len(ev.VLANs) != 0 {
		t.Errorf("evidence is %+v", ev)
	}
	if got := k.countKinds(t); got[verify.SameMAC] != 0 || got[verify.Returned] != 9 || got[verify.Conflict] != 0 {
		t.Errorf("events are %v", got)
	}
	// An answer to the host's own probe shows a duplicate behind such a port, too: the endpoint's
	// own answer is dropped.
	if ret := k.out(t, tagged(probeAnswer(t), tag50)); ret != shot {
		t.Errorf("the endpoint's answer to its own host: got %d, want it dropped", ret)
	}
	k.in(t, tagged(probeAnswer(t), tag50))
	if got := k.mustEvidence(t, e).Claimants; len(got) != 1 || !got[0].SameMAC {
		t.Errorf("claimants are %+v, want a duplicate MAC", got)
	}
}

// TestAnswersGetOut checks that a container's other answers are not dropped: to another host's
// probe, and to a question of the parent that has a sender address.
func TestAnswersGetOut(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	must(t, k.setLocals(verify.Locals{Parents: []ether.MAC{parent}}))
	must(t, k.expect(e))
	for name, p := range map[string]arp.Packet{
		"another's probe": {Destination: claimant, Source: ownMAC, Reply: true, Sender: ownMAC, SenderIP: addr4,
			Target: claimant, TargetIP: netip.IPv4Unspecified()},
		"the host's request": {Destination: parent, Source: ownMAC, Reply: true, Sender: ownMAC, SenderIP: addr4,
			Target: parent, TargetIP: gw4},
	} {
		if ret := k.out(t, tagged(mustARP(t, p), tag50)); ret == shot {
			t.Errorf("an answer to %s is dropped", name)
		}
	}
}

// TestSiblings checks frames between siblings on the trunk itself, which pass its ingress: they
// prove nothing about the VLAN, and do not count as inbound.
func TestSiblings(t *testing.T) {
	foreign := ether.MAC{0x0a, 0, 0, 0, 0, 0x77}
	a := verify.Endpoint{MAC: ownMAC, Attachment: verify.ID{1}, Addrs: []netip.Addr{addr4}}
	b := verify.Endpoint{MAC: sibling, Attachment: verify.ID{2}}
	k := mustKit(t)
	must(t, k.setLocals(verify.Locals{Parents: []ether.MAC{parent}, Siblings: []ether.MAC{foreign}}))
	must(t, k.expect(a))
	must(t, k.expect(b))
	k.in(t, data(ownMAC, sibling))
	k.in(t, data(sibling, ownMAC))
	k.in(t, data(ownMAC, foreign))
	k.in(t, data(foreign, ownMAC))
	k.in(t, tagged(data(ownMAC, sibling), tag60)) // tagged by hand
	k.in(t, tagged(data(ownMAC, foreign), tag60))
	for _, e := range []verify.Endpoint{a, b} {
		ev := k.mustEvidence(t, e)
		if ev.Counters.InFrames != 0 || len(ev.VLANs) != 0 || len(ev.Claimants) != 0 || ev.Returned.Count != 0 {
			t.Errorf("evidence of %s is %+v, want nothing heard", e.MAC, ev)
		}
	}
	k.in(t, data(ownMAC, claimant))
	if ev := k.mustEvidence(t, a); ev.Counters.InFrames != 1 || len(ev.VLANs) != 1 || ev.VLANs[0].MAC != claimant {
		t.Errorf("evidence is %+v, want one frame from the wire", ev)
	}
	// A sibling that claims the endpoint's address is a claimant all the same.
	k.in(t, mustARP(t, arp.Packet{Destination: ownMAC, Source: foreign, Reply: true, Sender: foreign, SenderIP: addr4,
		Target: ownMAC, TargetIP: addr4}))
	if got := k.mustEvidence(t, a).Claimants; len(got) != 1 || got[0].MAC != foreign {
		t.Errorf("claimants are %+v, want %s", got, foreign)
	}
	// When it is no longer listed as a sibling, its frames count.
	must(t, k.setLocals(verify.Locals{Parents: []ether.MAC{parent}, Siblings: []ether.MAC{}}))
	k.in(t, data(ownMAC, foreign))
	if n := k.mustEvidence(t, a).Counters.InFrames; n != 2 {
		t.Errorf("%d frames came in, want 2", n)
	}
	must(t, k.forget(a))
	must(t, k.forget(b))
	k.in(t, data(sibling, ownMAC))
	k.in(t, mustFrame(t)(arp.Probe(parent, addr4)))
	if got := k.countKinds(t); got[verify.Returned] != 0 || got[verify.SameMAC] != 1 {
		t.Errorf("events are %v, want another station with the parent's MAC", got)
	}
}

// TestProbers checks that a station that only probes for an address is not a claimant.
func TestProbers(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		addr  netip.Addr
	}{
		"ARP": {mustFrame(t)(arp.Probe(claimant, addr4)), addr4},
		"ND":  {mustFrame(t)(ndp.Probe(claimant, addr6)), addr6},
	} {
		k, e := mustKit(t), watchedEndpoint()
		must(t, k.expect(e))
		k.in(t, tagged(c.frame, tag50))
		if got := k.mustEvidence(t, e).Claimants; len(got) != 0 {
			t.Errorf("%s: claimants are %+v", name, got)
		}
		p, err := tagKeyOf(e.Tags)
		must(t, err)
		got, err := k.probers(p, e)
		must(t, err)
		if len(got) != 1 || got[0] != (verify.Claimant{Addr: c.addr, MAC: claimant, At: got[0].At, Count: 1, Probing: true}) {
			t.Errorf("%s: probers are %+v", name, got)
		}
		if got := k.countKinds(t); len(got) != 0 {
			t.Errorf("%s: events are %v", name, got)
		}
	}
}
