package verify

import (
	"net/netip"
	"testing"
)

func TestAnomalies(t *testing.T) {
	own := netip.MustParseAddr("192.168.50.9")
	seen := func() Evidence {
		return Evidence{
			Counters:  Counters{OutFrames: 10, InFrames: 10, OutWrong: 2, Dropped: 2},
			Gateways:  []GatewaySeen{{Addr: gateway, MAC: gwMAC, Reply: Sighting{At: 5, Count: 1}}},
			Claimants: []Claimant{{Addr: own, MAC: other, Count: 3}},
		}
	}
	for _, c := range []struct {
		name string
		then func(*Evidence)
		want []Anomaly // kind, count, MAC
	}{
		{"nothing new", func(e *Evidence) { e.Counters.OutFrames += 5 }, nil},
		{"the same claimant again", func(e *Evidence) { e.Claimants[0].Count = 5 },
			[]Anomaly{{Kind: Conflict, Count: 2, MAC: other}}},
		{"another claimant", func(e *Evidence) { e.Claimants[0] = Claimant{Addr: own, MAC: gwMAC, Count: 1} },
			[]Anomaly{{Kind: Conflict, Count: 1, MAC: gwMAC}}},
		{"tags", func(e *Evidence) { e.Counters.OutWrong, e.Counters.InWrong = 3, 4 },
			[]Anomaly{{Kind: WrongTagOut, Count: 1}, {Kind: WrongTagIn, Count: 4}}},
		{"failover", func(e *Evidence) { e.Gateways[0].MAC = other }, []Anomaly{{Kind: GatewayMoved, Count: 1, MAC: other}}},
		{"answered for the first time", func(e *Evidence) { e.Gateways[0].Addr = own }, nil},
		{"watched again from the start", func(e *Evidence) { e.Counters = Counters{InWrong: 1} },
			[]Anomaly{{Kind: Conflict, Count: 3, MAC: other}, {Kind: WrongTagIn, Count: 1}}},
	} {
		now := seen()
		c.then(&now)
		got := Anomalies(seen(), now)
		if len(got) != len(c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
			continue
		}
		for i, w := range c.want {
			if got[i].Kind != w.Kind || got[i].Count != w.Count || got[i].MAC != w.MAC || got[i].Text == "" {
				t.Errorf("%s: got %+v, want %+v", c.name, got[i], w)
			}
		}
	}
}
