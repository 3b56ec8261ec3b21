package probe_test

import (
	"context"
	"testing"

	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// BenchmarkProber opens a prober, asks a gateway that answers at once for its two addresses, and
// closes the prober. The table's sender stays open, like the sender that uses a program.
func BenchmarkProber(b *testing.B) {
	l, _ := mustLab(b)
	p := mustContainerLink(b, l)
	// b.Run changes the goroutine, and so the thread: enter the namespace inside.
	b.Run("table", func(b *testing.B) {
		p.do(b, func() error {
			sender, err := probe.OpenSocket(p.ifindex, p.mac)
			if err != nil {
				return err
			}
			defer sender.Close()
			return benchmark(b, func() (verify.Prober, error) { return probe.OpenTable(p.ifindex, p.mac, sender) })
		})
	})
	b.Run("socket", func(b *testing.B) {
		p.do(b, func() error {
			return benchmark(b, func() (verify.Prober, error) { return probe.OpenSocket(p.ifindex, p.mac) })
		})
	})
}

func benchmark(b *testing.B, open func() (verify.Prober, error)) error {
	b.ReportAllocs()
	for b.Loop() {
		if err := askBoth(open); err != nil {
			return err
		}
	}
	return nil
}

func askBoth(open func() (verify.Prober, error)) error {
	prober, err := open()
	if err != nil {
		return err
	}
	for _, q := range []verify.Question{{Addr: gateway4}, {Addr: gateway6}} {
		if err := prober.Ask(q); err != nil {
			return err
		}
	}
	for range 2 {
		if _, err := prober.Next(context.Background(), answerTimeout); err != nil {
			return err
		}
	}
	return prober.Close()
}
