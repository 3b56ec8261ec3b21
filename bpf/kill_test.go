//go:build failpoint

package bpf

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// kill runs an order in a process that kills itself after the given step.
func kill(tb testing.TB, n *testenv.Namespace, o order, step string) {
	tb.Helper()
	cmd := process(tb, o)
	cmd.Env = append(cmd.Env, "LANYARD_FAILPOINT="+step)
	err := finish(n, cmd)
	if s, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); err == nil || !ok ||
		s.Signal() != unix.SIGKILL {
		tb.Fatalf("%s, killed after %q: %v: it did not reach the step", o.Do, step, err)
	}
}

// afterKilledLoaders runs f after each step of a prepare at which a hook was killed, on a bench of
// its own.
func afterKilledLoaders(t *testing.T, f func(t *testing.T, b *bench, step string)) {
	t.Helper()
	onBoth(t, func(t *testing.T, o Options) {
		for _, step := range []string{"bpf-pins", "bpf-named", "bpf-egress", "bpf-ingress"} {
			o := o
			o.Root = mustRoot(t)
			b := newIdleBench(t, o, testenv.Config{})
			kill(t, b.Host, order{Options: o, Do: "prepare", Trunk: b.trunk}, step)
			f(t, b, step)
		}
	})
}

// TestKilledLoader kills hooks while they prepare a trunk. The trunk must not look watched
// afterwards, and the next Prepare must complete it.
func TestKilledLoader(t *testing.T) {
	testenv.OutsideOfVM(t)
	afterKilledLoaders(t, func(t *testing.T, b *bench, step string) {
		if all, err := b.Endpoints(); err != nil || len(all) > 0 {
			t.Errorf("killed after %s: endpoints %+v, %v", step, all, err)
		}
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkWatched(t, "killed after "+step+" and prepared again")
		b.do(t, func() error { return b.Release(b.trunk) })
		if got := b.qdiscs(t); strings.Contains(got, "clsact") {
			t.Errorf("killed after %s, prepared and released: %s", step, got)
		}
	})
}

// TestKilledLoaderReleased releases what a killed hook left, without a Prepare in between.
func TestKilledLoaderReleased(t *testing.T) {
	testenv.OutsideOfVM(t)
	afterKilledLoaders(t, func(t *testing.T, b *bench, step string) {
		b.do(t, func() error { return b.Release(b.trunk) })
		if left := append(b.chain(t, egress), b.chain(t, ingress)...); len(left) > 0 {
			t.Errorf("killed after %s and released: programs %v", step, left)
		}
	})
}

// TestKilledRelease kills a process that releases a trunk. The next Release must complete that, and
// Prepare must watch the trunk again.
func TestKilledRelease(t *testing.T) {
	testenv.OutsideOfVM(t)
	onBoth(t, func(t *testing.T, o Options) {
		for _, step := range []string{"bpf-detached", "bpf-aside"} {
			for _, again := range []bool{true, false} {
				o := o
				o.Root = mustRoot(t)
				b := newIdleBench(t, o, testenv.Config{})
				b.do(t, func() error { return b.Prepare(b.trunk) })
				kill(t, b.Host, order{Options: o, Do: "release", Trunk: b.trunk}, step)
				if again {
					b.do(t, func() error { return b.Prepare(b.trunk) })
					b.checkWatched(t, "a release was killed after "+step)
				}
				b.do(t, func() error { return b.Release(b.trunk) })
			}
		}
	})
}

// TestKilledExpect kills a hook between the rows that it writes. Endpoints must list the endpoint,
// and Forget remove all of it.
func TestKilledExpect(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{})
	e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Addrs: []netip.Addr{addr4, addr6}, Gateways: []netip.Addr{},
		Attachment: verify.ID{1}}
	o := order{Options: Options{Root: string(b.root)}, Trunk: b.trunk, Expect: e}
	clean := func(what string) {
		t.Helper()
		all, err := b.Endpoints()
		must(t, err)
		if len(all) != 1 || all[0].MAC != ownMAC {
			t.Errorf("%s: endpoints %+v, want one", what, all)
		}
		for _, e := range all {
			must(t, b.Forget(e))
		}
		for what, keys := range map[string]func() (int, error){
			"endpoints": func() (int, error) { k, err := b.trunks[b.trunk].endpoints.keys(); return len(k), err },
			"addresses": func() (int, error) { k, err := b.trunks[b.trunk].addrs.keys(); return len(k), err },
		} {
			if n, err := keys(); n != 0 || err != nil {
				t.Errorf("%d %s remain, %v", n, what, err)
			}
		}
	}
	for _, step := range []string{"bpf-row"} {
		o.Do = "expect"
		kill(t, b.Host, o, step)
		clean("killed after " + step)
		kill(t, b.Host, o, step)
		must(t, finish(b.Host, process(t, o)))
		clean("killed after " + step + " and expected again")
	}
	must(t, finish(b.Host, process(t, o)))
	o.Do = "forget"
	kill(t, b.Host, o, "bpf-forget")
	clean("killed in Forget")
}

// TestKilledShare kills a hook while it adds a second endpoint with the same MAC. The first must
// stay watched, and nothing may remain when both are forgotten.
func TestKilledShare(t *testing.T) {
	for _, step := range []string{"bpf-share", "bpf-shared"} {
		b := newBench(t, Options{}, testenv.Config{})
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Tags: vlan50, Attachment: verify.ID{1}}
		f := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Tags: vlan60, Attachment: verify.ID{2}}
		must(t, b.Expect(e))
		o := order{Options: Options{Root: string(b.root)}, Trunk: b.trunk, Expect: f, Do: "expect"}
		kill(t, b.Host, o, step)
		if _, err := b.Evidence(e); err != nil {
			t.Errorf("killed after %s: the first: %v", step, err)
		}
		must(t, finish(b.Host, process(t, o)))
		all, err := b.Endpoints()
		must(t, err)
		if len(all) != 2 {
			t.Errorf("killed after %s and expected again: %+v, want both", step, all)
		}
		must(t, errors.Join(b.Forget(e), b.Forget(f)))
		left, err := b.trunks[b.trunk].sharedEndpoints(ownMAC)
		if all, lerr := b.Endpoints(); err != nil || lerr != nil || len(all)+len(left) != 0 {
			t.Errorf("killed after %s, and both forgotten: %+v, %+v, %v, %v", step, all, left, err, lerr)
		}
	}
}

// TestKilledUpgrade kills a process that replaces the programs of an earlier edition. The next
// Prepare must complete that, and keep the maps.
func TestKilledUpgrade(t *testing.T) {
	testenv.OutsideOfVM(t)
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		o.Root = string(b.root)
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}}
		must(t, b.Expect(e))
		for _, step := range []string{"bpf-swapped-emit", "bpf-swapped-egress", "bpf-swapped-ingress"} {
			b.asEdition(t, edition-1)
			kill(t, b.Host, order{Options: o, Do: "prepare", Trunk: b.trunk}, step)
			b.do(t, func() error { return b.Prepare(b.trunk) })
			b.checkWatched(t, "killed at "+step+" and prepared again")
			if _, err := b.Evidence(e); err != nil {
				t.Errorf("killed at %s: its endpoint was lost: %v", step, err)
			}
		}
	})
}
