package link

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkAttach measures the netlink part of a container's start, on an untagged parent:
// the total and each step in µs.
func BenchmarkAttach(b *testing.B) {
	h := mustHost(b)
	mustVeth(b, h, "trunk")
	pid := mustContainer(b).Process.Pid
	spent := map[string]time.Duration{}
	ctx := context.Background()
	for b.Loop() {
		last := time.Now()
		step := func(name string) {
			now := time.Now()
			spent[name] += now.Sub(last)
			last = now
		}
		p, _, err := h.EnsureParent(ctx, ParentSpec{Name: "trunk"}, false)
		must(b, err)
		step("parent")
		n, err := h.OpenNetns(pid)
		must(b, err)
		step("netns")
		i, err := h.CreateMacvlan(ctx, n, specOn(b, p))
		must(b, err)
		step("macvlan")
		must(b, n.AddAddr(i.Index, Addr{Prefix: subnet}))
		step("addr")
		must(b, n.AddRoute(DefaultRoute(i.Index, netip.MustParseAddr("192.168.50.1"))))
		step("route")
		b.StopTimer()
		must(b, n.DeleteInterface(i))
		n.Close()
		b.StartTimer()
	}
	for name, d := range spent {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), name+"-µs")
	}
}
