package bpf

import (
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// BenchmarkStart measures the steps of a container's start, each as a hook process does it, with
// nothing open yet.
func BenchmarkStart(b *testing.B) {
	for _, legacy := range []bool{false, true} {
		name := "tcx"
		if legacy {
			name = "clsact"
		}
		b.Run(name, func(b *testing.B) { benchmarkStart(b, Options{Legacy: legacy}) })
	}
}

func benchmarkStart(b *testing.B, o Options) {
	l := newBench(b, o, testenv.Config{})
	o.Root = string(l.root)
	e := verify.Endpoint{Trunk: l.trunk, MAC: ownMAC, Addrs: []netip.Addr{addr4, addr6}, Gateways: []netip.Addr{gw4, gw6},
		Attachment: verify.ID{1}, Enforce: true}
	frame := mustFrame(b)(arp.Probe(ownMAC, gw4))
	step := func(name string, before, f func(d *Datapath) error) {
		b.Run(name, func(b *testing.B) {
			l.do(b, func() error {
				for range b.N {
					b.StopTimer()
					d := New(o)
					if err := before(d); err != nil {
						return err
					}
					b.StartTimer()
					if err := f(d); err != nil {
						return err
					}
					b.StopTimer()
					d.Close()
				}
				return nil
			})
		})
	}
	none := func(*Datapath) error { return nil }
	prepared := func(d *Datapath) error { return d.Prepare(e.Trunk) }
	step("prepare", none, prepared)
	step("expect", func(d *Datapath) error { d.Forget(e); return prepared(d) },
		func(d *Datapath) error { return d.Expect(e) })
	step("expect-again", prepared, func(d *Datapath) error { return d.Expect(e) })
	step("evidence", prepared, func(d *Datapath) error { _, err := d.Evidence(e); return err })
	step("evidence-twice", func(d *Datapath) error { _, err := d.Evidence(e); return err },
		func(d *Datapath) error { _, err := d.Evidence(e); return err })
	step("emitter", prepared, func(d *Datapath) error { _, err := d.Emitter(); return err })
	step("send", func(d *Datapath) error { _, err := d.Emitter(); return err },
		func(d *Datapath) error { return emitter{d.emit}.Send(l.trunk, frame) })
	step("forget", func(d *Datapath) error { return d.Expect(e) }, func(d *Datapath) error { return d.Forget(e) })
	step("close", prepared, func(d *Datapath) error { return d.Close() })
}
