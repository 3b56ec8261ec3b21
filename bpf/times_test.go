package bpf

import (
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// jiffy is longer than a jiffy of any kernel (10 ms with CONFIG_HZ=100). It allows for late ticks in
// an emulator.
const jiffy = 250 * time.Millisecond

// TestTimes checks that recorded times are exact while a probe may be pending. Otherwise they are
// at most one jiffy old, and the clock is read as rarely as that allows.
func TestTimes(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	ask := func() (at, before, after verify.Instant) {
		before = verify.Now()
		k.out(t, tagged(mustFrame(t)(arp.Probe(ownMAC, gw4)), vlan50...))
		return k.mustEvidence(t, e).Gateways[0].Asked.At, before, verify.Now()
	}
	for range 50 {
		if at, before, after := ask(); at < before || at > after {
			t.Fatalf("an exact time is %d, want one from %d to %d", at, before, after)
		}
	}
	must(t, k.useExactClock(-time.Second))
	different := map[verify.Instant]bool{}
	var began, last verify.Instant
	const times = 2000
	for range times {
		at, before, after := ask()
		if at > after || before.Sub(at) > jiffy || at < last {
			t.Fatalf("a coarse time is %d after %d, want one from a jiffy before %d to %d", at, last, before, after)
		}
		if began == 0 {
			began = at
		}
		last, different[at] = at, true
	}
	if most := int(last.Sub(began)/time.Millisecond) + 2; len(different) > most || len(different) == times {
		t.Errorf("%d different times in %v, want at most %d", len(different), last.Sub(began), most)
	}
	if g := k.mustEvidence(t, e).Gateways[0]; g.Asked.Count != times+50 {
		t.Errorf("counted %d questions of %d", g.Asked.Count, times+50)
	}
}

// TestRepeated sends the same claims again and again within one tick: each is processed once, but
// all of them are counted in the history. Other claims in between are not lost.
func TestRepeated(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	must(t, k.useExactClock(-time.Second))
	k.in(t, tagged(reply(t, router), vlan50...))
	k.in(t, tagged(advert(t, broadcast, router), vlan50...))
	start := verify.Now() - verify.Instant(jiffy)
	const times = 500
	for range times {
		for _, from := range []ether.MAC{claimant, router2} {
			k.in(t, tagged(mustFrame(t)(arp.Announce(from, addr4)), vlan50...))
		}
		k.in(t, tagged(reply(t, router), vlan50...))
		k.in(t, tagged(advert(t, broadcast, router), vlan50...))
	}
	for _, from := range []ether.MAC{claimant, router2} {
		k.mustHaveEvent(t, start, verify.Event{Kind: verify.Conflict, Frames: times, Tags: vlan50, InPacket: true,
			Addr: addr4, MAC: from, EndpointMAC: ownMAC})
	}
	ev := k.mustEvidence(t, e)
	if len(ev.Claimants) != 1 || ev.Claimants[0].Count == 0 || ev.Claimants[0].MAC != claimant &&
		ev.Claimants[0].MAC != router2 {
		t.Errorf("claimants are %+v", ev.Claimants)
	}
	if g := ev.Gateways; g[0].MAC != router || g[0].Reply.Count != times+1 || g[1].MAC != router ||
		g[1].Reply.Count == 0 || !g[1].Other.IsZero() {
		t.Errorf("gateways are %+v", g)
	}
	// A gateway that moves within the tick is noticed.
	k.in(t, tagged(reply(t, router2), vlan50...))
	k.in(t, tagged(advert(t, broadcast, router2), vlan50...))
	for i, g := range k.mustEvidence(t, e).Gateways {
		if g.MAC != router2 || g.Other != router {
			t.Errorf("gateway %d is %+v after its move", i, g)
		}
	}
}
