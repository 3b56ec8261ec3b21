package bpf

import (
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

func TestLab(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		gw := b.AddGateway(0, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ours, Addrs: []netip.Addr{addr4}, Gateways: []netip.Addr{gw4}, Attachment: verify.ID{1}, Enforce: true}
		must(t, b.Expect(e))
		start := verify.Now()
		c := b.join(t, b.Trunk, ours, "192.168.50.2/24")
		must(t, ping(c.Namespace, gw4, 5))
		ev, err := b.Evidence(e)
		must(t, err)
		t.Logf("%+v", ev)
		g := ev.Gateways[0]
		if g.MAC != verify.MACOf(gw.MAC) || g.Asked.Count != 1 || g.Reply.Count != 1 || g.Asked.At < start || g.Reply.At < g.Asked.At || g.Reply.At > verify.Now() {
			t.Errorf("gateway seen: %+v", g)
		}
	})
}
