package matrix

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// BenchmarkVerification measures what a verdict adds to an attach: the same attach with
// verification at its defaults and without, in turns, with gateways that answer after different
// times. "beyond-ms" is the time beyond two round trips and 2 ms, or beyond the deadline if the
// gateway is silent; a negative value is within the limit. The figures are lower quartiles, and in
// "least-ms" the fastest attach, to exclude the effect of other load on the machine.
//
//	go test -run - -bench Verification -benchtime 30x ./testenv/matrix
func BenchmarkVerification(b *testing.B) {
	for _, c := range []struct {
		name   string
		delay  time.Duration
		silent bool
		both   bool // both families
	}{
		{name: "RTT=0"}, {name: "RTT=0,both-families", both: true},
		{name: "RTT=5ms", delay: 5 * time.Millisecond}, {name: "RTT=20ms", delay: 20 * time.Millisecond},
		{name: "silent", silent: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			subnets := []network.Subnet{subnet4}
			if c.both {
				subnets = append(subnets, subnet6)
			}
			with, without := newSite(b, verify.Warn, subnets...), newSite(b, verify.Off, subnets...)
			switch {
			case c.silent:
				with.gateway.RemoveAddr("192.168.50.1/24")
			case c.delay > 0:
				with.gateway.RemoveAddr("192.168.50.1/24")
				mac := with.gateway.MAC
				r := with.gateway.Respond(func(q testenv.Asked) []testenv.Reply {
					if q.Addr != subnet4.Gateway {
						return nil
					}
					return []testenv.Reply{{MAC: mac, After: c.delay}}
				})
				defer r.Stop()
			}
			var on, off, beyond []time.Duration
			var quickest, least time.Duration
			for b.Loop() {
				bare, _ := without.attach(b)
				took, v := with.attach(b)
				allowed := 2*v.RTT + 2*time.Millisecond
				if c.silent {
					allowed = verify.DefaultDeadline
				}
				on, off, beyond = append(on, took), append(off, bare), append(beyond, took-allowed)
				if quickest == 0 || took < quickest {
					quickest, least = took, took-allowed
				}
				if good := v.Code == verify.OK; good == c.silent {
					b.Fatalf("verdict %s: %s", v.Code, v.Text)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(millis(quartile(off)), "off-ms") // sorted from here on
			b.ReportMetric(millis(quartile(on)-quartile(off)), "added-ms")
			b.ReportMetric(millis(quartile(beyond)-quartile(off)), "beyond-ms")
			b.ReportMetric(millis(least-off[0]), "least-ms")
		})
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func quartile(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/4]
}

// teardownTime is longer than the kernel takes to delete a namespace with one link.
const teardownTime = 150 * time.Millisecond

// attach attaches a container, ends it, and returns how long the attach took.
func (s *site) attach(b *testing.B) (took time.Duration, v verify.Verdict) {
	b.Helper()
	container := testenv.NewContainer(b)
	must(b, inHost(s.Lab, s.paths, func(ctx context.Context, l *wiring.Lanyard) error {
		start := time.Now()
		got, err := l.Attach(ctx, hook.Request{Container: "c1", Name: "c1", Pid: container.Pid,
			Wants: []hook.Want{{Network: "web", Addrs: s.addrs}}})
		took = time.Since(start)
		if err != nil {
			return err
		}
		v = got[0].Verdict
		if err := container.Kill(); err != nil {
			return err
		}
		return l.Detach(ctx, "c1")
	}))
	container.End(b)
	// Its namespace goes in the background, with the RTNL held: the next attach is not to
	// wait for that, whose start it would not be.
	time.Sleep(teardownTime)
	return took, v
}
