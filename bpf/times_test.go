package bpf

import (
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// jiffy is the longest that there is (CONFIG_HZ=100), and what an emulator adds that
// is late with its ticks.
const jiffy = 250 * time.Millisecond

// TestTimes notes times that are exact while somebody probes, and else as old as a
// jiffy at the most, with as few looks at the clock.
func TestTimes(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	ask := func() (at, before, after verify.Instant) {
		before = verify.Now()
		k.out(t, tagged(mustFrame(t)(arp.Probe(ours, gw4)), vlan50...))
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
		t.Errorf("%d different times in %v, want %d at the most", len(different), last.Sub(began), most)
	}
	if g := k.mustEvidence(t, e).Gateways[0]; g.Asked.Count != times+50 {
		t.Errorf("counted %d questions of %d", g.Asked.Count, times+50)
	}
}

// TestRepeated has claims come again and again within one tick: they are looked into
// once, and every one of them is in the history. Others in between are not hidden.
func TestRepeated(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	must(t, k.useExactClock(-time.Second))
	k.in(t, tagged(reply(t, router), vlan50...))
	k.in(t, tagged(advert(t, broadcast, router), vlan50...))
	start := verify.Now() - verify.Instant(jiffy)
	const times = 500
	for range times {
		for _, from := range []verify.MAC{claimant, router2} {
			k.in(t, tagged(mustFrame(t)(arp.Announce(from, addr4)), vlan50...))
		}
		k.in(t, tagged(reply(t, router), vlan50...))
		k.in(t, tagged(advert(t, broadcast, router), vlan50...))
	}
	for _, from := range []verify.MAC{claimant, router2} {
		k.mustHaveEvent(t, start, verify.Event{Kind: verify.Conflict, Frames: times, Tags: vlan50, InPacket: true, Addr: addr4, MAC: from, EndpointMAC: ours})
	}
	ev := k.mustEvidence(t, e)
	if len(ev.Claimants) != 1 || ev.Claimants[0].Count == 0 || ev.Claimants[0].MAC != claimant && ev.Claimants[0].MAC != router2 {
		t.Errorf("rivals are %+v", ev.Claimants)
	}
	if g := ev.Gateways; g[0].MAC != router || g[0].Reply.Count != times+1 || g[1].MAC != router || g[1].Reply.Count == 0 || !g[1].Other.IsZero() {
		t.Errorf("gateways are %+v", g)
	}
	// A gateway that moves within the tick is seen to.
	k.in(t, tagged(reply(t, router2), vlan50...))
	k.in(t, tagged(advert(t, broadcast, router2), vlan50...))
	for i, g := range k.mustEvidence(t, e).Gateways {
		if g.MAC != router2 || g.Other != router {
			t.Errorf("gateway %d is %+v after it has moved", i, g)
		}
	}
}
