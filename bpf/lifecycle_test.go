package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// chain returns the ids of all tc programs on one way of the trunk, by TCX and in clsact, in the
// order in which frames meet them.
func (b *bench) chain(tb testing.TB, w way) (ids []ebpf.ProgramID) {
	tb.Helper()
	b.do(tb, func() (err error) {
		if ids, err = queryTCX(b.trunk, w.tcx); err != nil {
			return err
		}
		ids = slices.Clone(ids)
		filters, err := filtersOn(b.trunk, w)
		for _, f := range filters {
			if own := ownFilter(f); own != nil {
				ids = append(ids, ebpf.ProgramID(own.Id))
			}
		}
		return err
	})
	return ids
}

// pinned returns the ids of the pinned programs.
func (b *bench) pinned(tb testing.TB) (ids [2]ebpf.ProgramID) {
	tb.Helper()
	for i, w := range ways {
		id, err := pinnedID(filepath.Join(b.root.TrunkDir(b.trunk, layout), w.name))
		must(tb, err)
		ids[i] = id
	}
	return ids
}

// wantPinned checks that the pinned programs are still those with the ids.
func (b *bench) wantPinned(tb testing.TB, ids [2]ebpf.ProgramID) {
	tb.Helper()
	if again := b.pinned(tb); again != ids {
		tb.Errorf("programs %v, then %v: they were replaced", ids, again)
	}
}

// checkWatched fails unless both programs are on the trunk, once each.
func (b *bench) checkWatched(tb testing.TB, what string) {
	tb.Helper()
	ids := b.pinned(tb)
	for i, w := range ways {
		if got := b.chain(tb, w); len(got) != 1 || got[0] != ids[i] {
			tb.Errorf("%s: programs %v on the %s, want only %d", what, got, w.name, ids[i])
		}
	}
}

// qdiscs returns the trunk's qdiscs, as tc lists them.
func (b *bench) qdiscs(tb testing.TB) string {
	tb.Helper()
	out, err := b.Host.Exec("tc", "qdisc", "show", "dev", b.Trunk)
	must(tb, err)
	return out
}

func TestPrepareAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		b.checkWatched(t, "prepared")
		ids := b.pinned(t)
		other := New(Options{Root: string(b.root), Legacy: !o.Legacy})
		b.do(t, func() error { return errors.Join(b.Prepare(b.trunk), other.Prepare(b.trunk), other.Close()) })
		b.checkWatched(t, "prepared three times")
		b.wantPinned(t, ids)
	})
}

// TestConcurrentPrepare runs many hooks at once on a trunk that is not watched yet.
func TestConcurrentPrepare(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		o.Root = mustRoot(t)
		b := newIdleBench(t, o, testenv.Config{})
		var all []*exec.Cmd
		for range 8 {
			cmd := process(t, order{Options: o, Do: "prepare", Trunk: b.trunk})
			must(t, b.Host.Start(cmd))
			all = append(all, cmd)
		}
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				t.Errorf("one of the hooks: %v: %s", err, cmd.Stderr)
			}
		}
		b.checkWatched(t, "prepared by many at once")
		b.do(t, func() error { return b.Release(b.trunk) })
	})
}

// TestConcurrentRelease runs hooks while others release the trunk. The only error they may get is
// that the trunk is not watched, and nothing may remain at the end.
func TestConcurrentRelease(t *testing.T) {
	testenv.OutsideOfVM(t)
	onBoth(t, func(t *testing.T, o Options) {
		b := newIdleBench(t, o, testenv.Config{})
		o.Root = string(b.root)
		var hooks errgroup.Group
		for i := range 4 {
			hooks.Go(func() error {
				return b.Host.Do(func() error {
					for n := range 10 {
						e := verify.Endpoint{Trunk: b.trunk, MAC: ether.MAC{2, 0x42, 5: byte(i)}, Addrs: []netip.Addr{addr4},
							Gateways: []netip.Addr{gw4}, Attachment: verify.ID{byte(i), byte(n)}, Enforce: true}
						if err := visit(o, e); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
		must(t, hooks.Wait())
		b.do(t, func() error { return b.Release(b.trunk) })
		if left := append(b.chain(t, egress), b.chain(t, ingress)...); len(left) > 0 {
			t.Errorf("programs remain: %v", left)
		}
	})
}

// visit does what a container's start and end do, with a network that is created before and removed
// after.
func visit(o Options, e verify.Endpoint) error {
	d := New(o)
	defer d.Close()
	if err := d.Prepare(e.Trunk); err != nil {
		return err
	}
	err := d.Expect(e)
	if err == nil {
		_, err = d.Evidence(e)
	}
	if err != nil && !strings.HasSuffix(err.Error(), "is not watched") {
		return err
	}
	return errors.Join(d.Forget(e), d.Release(e.Trunk))
}

func TestRelease(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newIdleBench(t, o, testenv.Config{})
		before := b.qdiscs(t)
		b.do(t, func() error { return b.Release(b.trunk) }) // there is nothing to release
		b.do(t, func() error { return b.Prepare(b.trunk) })
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}}
		b.do(t, func() error { return errors.Join(b.Expect(e), b.Release(b.trunk)) })
		b.checkWatched(t, "released while there was an endpoint")
		b.do(t, func() error { return errors.Join(b.Forget(e), b.Release(b.trunk), b.Release(b.trunk)) })
		for _, w := range ways {
			if left := b.chain(t, w); len(left) > 0 {
				t.Errorf("after the release there are programs %v on the %s", left, w.name)
			}
		}
		if after := b.qdiscs(t); after != before {
			t.Errorf("qdiscs before and after:\n%s%s", before, after)
		}
		if pin.Exists(string(b.root)) {
			t.Errorf("after the release there are pins: %v", mustTree(t, string(b.root)))
		}
		// Forgetting an endpoint of a trunk that is no longer watched is not an error.
		b.do(t, func() error { return b.Forget(e) })
		want := fmt.Sprintf("expect %s: trunk %q is not watched", ownMAC, b.Trunk)
		if err := b.Host.Do(func() error { return b.Expect(e) }); err == nil || err.Error() != want {
			t.Errorf("after the release, Expect: %v, want %q", err, want)
		}
	})
}

// TestTwoTrunks checks that releasing one trunk keeps the pins of the other.
func TestTwoTrunks(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{})
	_, err := b.Host.Exec("ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
	must(t, err)
	other := mustIndex(t, b.Host, "other0")
	e := verify.Endpoint{Trunk: other, MAC: ownMAC, Tags: ether.Tags{}, Attachment: verify.ID{2}, Enforce: true}
	f := e
	f.Trunk, f.Attachment = b.trunk, verify.ID{3}
	b.do(t, func() error { return errors.Join(b.Prepare(other), b.Expect(e), b.Expect(f)) })
	all, err := b.Endpoints()
	must(t, err)
	if len(all) != 2 || all[0].Trunk == all[1].Trunk {
		t.Errorf("endpoints of two trunks: %+v", all)
	}
	b.do(t, func() error { return errors.Join(b.Forget(e), b.Release(other)) })
	b.checkWatched(t, "after the release of another trunk")
	if all, err = b.Endpoints(); err != nil || len(all) != 1 || all[0].Trunk != b.trunk {
		t.Errorf("endpoints after one trunk was released: %+v, %v", all, err)
	}
}

// TestDeviceGone deletes the trunk, and makes another device with its ifindex.
func TestDeviceGone(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newIdleBench(t, o, testenv.Config{})
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}, Enforce: true}
		b.do(t, func() error { return errors.Join(b.Prepare(b.trunk), b.Expect(e)) })
		_, err := b.Host.Exec("ip", "link", "del", b.Trunk)
		must(t, err)
		if all, err := b.Endpoints(); err != nil || len(all) != 0 {
			t.Errorf("endpoints of a trunk that was deleted: %+v, %v", all, err)
		}
		want := fmt.Sprintf("find trunk with index %d: no such device", b.trunk)
		if err := b.Host.Do(func() error { return b.Prepare(b.trunk) }); err == nil || err.Error() != want {
			t.Errorf("Prepare of a trunk that was deleted: %v, want %q", err, want)
		}
		_, err = b.Host.Exec("ip", "link", "add", b.Trunk, "index", strconv.Itoa(b.trunk), "type", "veth", "peer", "name",
			"peer0")
		must(t, err)
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkWatched(t, "on another device with the same ifindex")
		if all, err := b.Endpoints(); err != nil || len(all) != 0 {
			t.Errorf("endpoints on another device with the same ifindex: %+v, %v", all, err)
		}
		// If the new device has another ifindex, preparing it removes the pins of the deleted one.
		_, err = b.Host.Exec("ip", "link", "del", b.Trunk)
		must(t, err)
		_, err = b.Host.Exec("ip", "link", "add", b.Trunk, "type", "veth", "peer", "name", "peer0")
		must(t, err)
		dead := b.root.TrunkDir(b.trunk, layout)
		b.trunk = mustIndex(t, b.Host, b.Trunk)
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkWatched(t, "on another device with another ifindex")
		if pin.Exists(dead) {
			t.Errorf("the pins of a deleted device remain: %q", dead)
		}
		// A deleted trunk is released even if it has endpoints.
		e.Trunk = b.trunk
		b.do(t, func() error { return b.Expect(e) })
		_, err = b.Host.Exec("ip", "link", "del", b.Trunk)
		must(t, err)
		b.do(t, func() error { return b.Release(b.trunk) })
	})
}

// TestDetached detaches a program from a trunk that still exists: Prepare must attach it again, and
// keep the endpoints.
func TestDetached(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}, Enforce: true}
		b.do(t, func() error { return b.Expect(e) })
		ids := b.pinned(t)
		if o.Legacy || len(mustTCX(t, b)) == 0 {
			_, err := b.Host.Exec("tc", "qdisc", "del", "dev", b.Trunk, "clsact")
			must(t, err)
		} else {
			must(t, detachTCX(filepath.Join(b.root.TrunkDir(b.trunk, layout), linkPin+"egress")))
		}
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkWatched(t, "detached and prepared")
		b.wantPinned(t, ids)
		if _, err := b.Evidence(e); err != nil {
			t.Errorf("its endpoint was lost: %v", err)
		}
	})
}

func mustTCX(tb testing.TB, b *bench) (ids []ebpf.ProgramID) {
	tb.Helper()
	b.do(tb, func() (err error) { ids, err = queryTCX(b.trunk, egress.tcx); return err })
	return ids
}

// TestPinsGone removes some pins, or all. Filters in clsact remain.
func TestPinsGone(t *testing.T) {
	testenv.OutsideOfVM(t)
	onBoth(t, func(t *testing.T, o Options) {
		for _, pin := range []string{endpointsPin, vlansPin, "egress", emitPin, devicePin, ""} {
			b := newBench(t, o, testenv.Config{})
			must(t, os.RemoveAll(filepath.Join(b.root.TrunkDir(b.trunk, layout), pin)))
			b.do(t, func() error { return b.Prepare(b.trunk) })
			testenv.Eventually(t, "the old programs to be removed", func() error {
				if n := len(b.chain(t, egress)); n != 1 {
					return fmt.Errorf("%d programs on the egress", n)
				}
				return nil
			})
			b.checkWatched(t, "without "+strconv.Quote(pin)+" and prepared")
		}
	})
}

// TestOtherLayout checks what happens to the pins of another version.
func TestOtherLayout(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{})
	now := b.root.TrunkDir(b.trunk, layout)
	later := strings.Replace(now, fmt.Sprintf("-v%d", layout), fmt.Sprintf("-v%d", layout+1), 1)
	must(t, os.Rename(now, later))
	want := fmt.Sprintf("another version of lanyard watches trunk %q: stop its containers, then remove %q", b.Trunk, later)
	if err := b.Host.Do(func() error { return b.Prepare(b.trunk) }); err == nil || err.Error() != want {
		t.Errorf("Prepare: %v, want %q", err, want)
	}
	if all, err := b.Endpoints(); len(all) != 0 || err != nil {
		t.Errorf("endpoints read from another layout: %+v, %v", all, err)
	}
	must(t, os.Rename(later, now))
}

// TestOtherNetns checks what happens to a trunk with the same ifindex in another namespace.
func TestOtherNetns(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{})
	n := testenv.NewNamespace(t, "other")
	if b.trunk == 1 {
		t.Fatal("the trunk is lo")
	}
	_, err := n.Exec("ip", "link", "add", "x0", "index", strconv.Itoa(b.trunk), "type", "veth", "peer", "name", "x1",
		"index", "77")
	must(t, err)
	want := fmt.Sprintf("%q belongs to a trunk of another network namespace: use another root in this one",
		b.root.TrunkDir(b.trunk, layout))
	if err := n.Do(func() error { return b.Prepare(b.trunk) }); err == nil || err.Error() != want {
		t.Errorf("Prepare: %v, want %q", err, want)
	}
	if err := n.Do(func() error { return b.Release(b.trunk) }); err == nil || err.Error() != want {
		t.Errorf("Release: %v, want %q", err, want)
	}
	b.checkWatched(t, "prepared and released from another namespace")
}
