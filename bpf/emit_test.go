package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// TestEmitter sends from inside a container: the trunk must see the unchanged frame, the gateway
// answer it, and Send return the kernel's errors.
func TestEmitter(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		gw := b.AddGateway(0, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Gateways: []netip.Addr{gw4}, Attachment: verify.ID{1},
			Enforce: true}
		b.do(t, func() error { return b.Expect(e) })
		c := b.join(t, b.Trunk, ownMAC, "192.168.50.2/24")
		nic := mustIndex(t, c.Namespace, "eth0")
		s, err := b.Emitter()
		must(t, err)
		send := func(frame []byte) error { return c.Do(func() error { return s.Send(nic, frame) }) }

		probe := mustFrame(t)(arp.Probe(ownMAC, gw4))
		must(t, send(probe))
		testenv.Eventually(t, "the gateway's answer", func() error {
			if g := b.mustEvidence(t, e).Gateways[0]; g.Asked.Count != 1 || g.Reply.Count != 1 || g.MAC != gw.MAC {
				return errors.New("not yet")
			}
			return nil
		})
		if err := send(tagged(probe, tag60)); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("a frame that the trunk drops: %v, want %v", err, unix.ENOBUFS)
		}
		if got := b.mustEvidence(t, e).Counters; got.Dropped != 1 {
			t.Errorf("after a wrong tag: %+v, want one dropped", got)
		}
		if err := send(probe[:13]); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a frame with an incomplete header: %v, want %v", err, unix.EINVAL)
		}
		_, err = c.Exec("ip", "link", "set", "eth0", "down")
		must(t, err)
		if err := send(probe); !errors.Is(err, unix.ENETDOWN) {
			t.Errorf("an interface that is down: %v, want %v", err, unix.ENETDOWN)
		}
		if err := c.Do(func() error { return s.Send(nic+1000, probe) }); !errors.Is(err, unix.EINVAL) {
			t.Errorf("an interface that does not exist: %v, want %v", err, unix.EINVAL)
		}
	})
}

// TestEmitterAlone sends without a prepared trunk.
func TestEmitterAlone(t *testing.T) {
	b := newIdleBench(t, Options{}, testenv.Config{})
	s, err := b.Emitter()
	must(t, err)
	again, err := b.Emitter()
	must(t, err)
	if s != again {
		t.Error("the program was loaded a second time")
	}
	b.do(t, func() error { return s.Send(b.trunk, mustFrame(t)(arp.Probe(ownMAC, gw4))) })
}
