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
	k, e := mustKit(t), watched()
	must(t, k.expect(e))
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
	must(t, k.exactly(-time.Second))
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
