package bpf

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// BenchmarkProgram measures what a frame costs in addition to an empty program. The two run in
// turns, so that other load on the machine affects both.
func BenchmarkProgram(b *testing.B) {
	must(b, rlimit.RemoveMemlock())
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	must(b, err)
	defer empty.Close()
	k := mustKit(b)
	must(b, k.useExactClock(0))
	e := verify.Endpoint{MAC: ownMAC, Tags: vlan50, Addrs: []netip.Addr{addr4, addr6}, Gateways: []netip.Addr{gw4, gw6}}
	must(b, k.expect(e))
	e.Tags, e.MAC = qinq, sibling
	must(b, k.expect(e))

	v50, v60 := vlan50[0], vlan60[0]
	ask := mustFrame(b)(arp.Probe(ownMAC, gw4))
	solicit := mustFrame(b)(ndp.Probe(ownMAC, gw6))
	other := netip.MustParseAddr("192.168.50.77")
	for _, c := range []struct {
		name  string
		prog  *ebpf.Program
		frame []byte
	}{
		{"out/known", k.Egress, tagged(data(router, ownMAC), v50)},
		{"out/known-qinq", k.Egress, tagged(data(router, sibling), qinq...)},
		{"out/unknown", k.Egress, data(router, claimant)},
		{"out/unknown-qinq", k.Egress, tagged(data(router, claimant), qinq...)},
		{"out/wrong-tag", k.Egress, tagged(data(router, ownMAC), v60)},
		{"out/arp-for-gateway", k.Egress, tagged(ask, v50)},
		{"out/ns-for-gateway", k.Egress, tagged(solicit, v50)},
		{"out/arp-unknown", k.Egress, tagged(mustFrame(b)(arp.Probe(claimant, other)), v50)},
		{"in/known", k.Ingress, tagged(data(ownMAC, router), v50)},
		{"in/known-qinq", k.Ingress, tagged(data(sibling, router), qinq...)},
		{"in/unknown", k.Ingress, data(claimant, router)},
		{"in/wrong-tag", k.Ingress, tagged(data(ownMAC, router), v60)},
		{"in/broadcast", k.Ingress, data(broadcast, router)},
		{"in/arp-for-others", k.Ingress, tagged(mustFrame(b)(arp.Request(router, gw4, other)), v60)},
		{"in/arp-gateway-asks", k.Ingress, tagged(mustFrame(b)(arp.Request(router, gw4, other)), v50)},
		{"in/arp-reply", k.Ingress, tagged(mustARP(b,
			arp.Packet{Destination: ownMAC, Source: router, Reply: true, Sender: router, SenderIP: gw4, Target: ownMAC,
				TargetIP: addr4}), v50)},
		{"in/arp-probe", k.Ingress, tagged(mustFrame(b)(arp.Probe(claimant, addr4)), v50)},
		{"in/na-for-others", k.Ingress, tagged(mustFrame(b)(ndp.Announce(router, netip.MustParseAddr("fd50::77"))), v50)},
		{"in/na-gateway", k.Ingress, tagged(mustFrame(b)(ndp.Announce(router, gw6)), v50)},
		{"in/na-wrong-vlan", k.Ingress, tagged(mustFrame(b)(ndp.Announce(router, gw6)), v60)},
	} {
		b.Run(c.name, func(b *testing.B) {
			const turns, runs = 100, 20_000
			var base, full int64
			for range b.N {
				base, full = 1<<40, 1<<40
				for range turns {
					base = min(base, mustRun(b, empty, c.frame, runs))
					full = min(full, mustRun(b, c.prog, c.frame, runs))
				}
			}
			b.ReportMetric(float64(base), "empty-ns/frame")
			b.ReportMetric(float64(full-base), "above-ns/frame")
			b.ReportMetric(0, "ns/op")
		})
	}
}
