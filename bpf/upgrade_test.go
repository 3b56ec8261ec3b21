package bpf

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"path/filepath"
	"testing"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestEdition fails if the programs change. Trunks that are already watched keep the old programs
// until edition is raised, together with the hash here.
func TestEdition(t *testing.T) {
	const want = "05be7db464d4cf0a"
	spec, err := loadWire()
	must(t, err)
	h := sha256.New()
	for _, name := range []string{egress.name, emitPin, ingress.name} {
		must(t, spec.Programs[name].Instructions.Marshal(h, binary.LittleEndian))
	}
	if got := hex.EncodeToString(h.Sum(nil)[:8]); edition != 1 || got != want {
		t.Errorf("edition %d is %s, want %s: raise the edition if this one was released", edition, got, want)
	}
}

// asEdition makes the trunk's pins those of another edition.
func (b *bench) asEdition(tb testing.TB, n int) {
	tb.Helper()
	dir := b.root.TrunkDir(b.trunk, layout)
	must(tb, errors.Join(pin.MarkEdition(dir, n), pin.UnmarkEdition(dir, edition)))
}

// TestUpgrade prepares a trunk with programs of an earlier edition, while frames pass: each frame
// must be counted, by one or the other.
func TestUpgrade(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		b.AddGateway(0, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}, Enforce: true}
		b.do(t, func() error { return b.Expect(e) })
		c := b.join(t, b.Trunk, ownMAC, "192.168.50.2/24")
		must(t, ping(c.Namespace, gw4, 1))
		before, ids := b.mustEvidence(t, e).Counters, b.pinned(t)
		b.asEdition(t, edition-1)

		const pings = 200
		done := make(chan error)
		go func() { done <- ping(c.Namespace, gw4, pings) }()
		b.do(t, func() error { return b.Prepare(b.trunk) })
		must(t, <-done)
		after := b.pinned(t)
		if after[0] == ids[0] || after[1] == ids[1] {
			t.Errorf("programs %v, then %v: want new ones", ids, after)
		}
		b.checkWatched(t, "upgraded")
		got := b.mustEvidence(t, e).Counters
		// The kernels may send one more ARP request each.
		for _, n := range []uint64{got.OutFrames - before.OutFrames, got.InFrames - before.InFrames} {
			if n < pings || n > pings+4 {
				t.Errorf("counted %d frames of %d: %+v, then %+v", n, pings, before, got)
			}
		}
		// The next Prepare does not upgrade again.
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.wantPinned(t, after)
	})
}

// TestLaterEdition checks that Prepare keeps programs of a later edition, and attaches them again
// if they were detached.
func TestLaterEdition(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		ids := b.pinned(t)
		b.asEdition(t, edition+1)
		b.do(t, func() error { return errors.Join(b.Prepare(b.trunk), b.Prepare(b.trunk)) })
		b.checkWatched(t, "with a later edition")
		b.wantPinned(t, ids)
	})
}

// TestUpgradeDetached prepares a trunk after its programs, of an earlier edition, were detached.
func TestUpgradeDetached(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		for _, w := range ways {
			must(t, detachTCX(filepath.Join(b.root.TrunkDir(b.trunk, layout), linkPin+w.name)))
			b.do(t, func() error { _, err := removeFilter(b.trunk, w); return err })
		}
		b.asEdition(t, edition-1)
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkWatched(t, "detached and upgraded")
	})
}
