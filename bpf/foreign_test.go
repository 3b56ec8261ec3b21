package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// mustForeign loads a tc program as another project would have it, which only returns answer.
func mustForeign(tb testing.TB, answer int32) (*ebpf.Program, uint32) {
	tb.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, answer), asm.Return(),
	}})
	must(tb, err)
	tb.Cleanup(func() { p.Close() })
	info, err := p.Info()
	must(tb, err)
	id, _ := info.ID()
	return p, uint32(id)
}

// foreignFilter adds a program to clsact as another project would.
func (b *bench) foreignFilter(w way, p *ebpf.Program, handle uint32, priority, protocol uint16) error {
	return b.Host.Do(func() error {
		if err := netlink.QdiscAdd(clsact(b.trunk)); err != nil &&
			!errors.Is(err, unix.EEXIST) {
			return err
		}
		return netlink.FilterReplace(&netlink.BpfFilter{Fd: p.FD(), Name: "foreign", DirectAction: true,
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: b.trunk, Parent: w.parent, Handle: handle, Priority: priority, Protocol: protocol,
			}})
	})
}

// filters returns one way's filters in clsact, as tc lists them.
func (b *bench) filters(tb testing.TB, w way) string {
	tb.Helper()
	out, err := b.Host.Exec("tc", "filter", "show", "dev", b.Trunk, w.name)
	must(tb, err)
	return out
}

// checkSees fails the test unless a container's traffic passes and is counted.
func (b *bench) checkSees(tb testing.TB, what string) {
	tb.Helper()
	e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}, Enforce: true}
	b.do(tb, func() error { return b.Expect(e) })
	if b.container == nil {
		b.container = b.join(tb, b.Trunk, ownMAC, "192.168.50.2/24")
	}
	must(tb, ping(b.container.Namespace, gw4, 3))
	if got := b.mustEvidence(tb, e).Counters; got.OutFrames < 3 || got.InFrames < 3 {
		tb.Errorf("%s: %+v, want three pings both ways", what, got)
	}
	b.do(tb, func() error { return b.Forget(e) })
}

func (b *bench) mustEvidence(tb testing.TB, e verify.Endpoint) verify.Evidence {
	tb.Helper()
	ev, err := b.Evidence(e)
	must(tb, err)
	return ev
}

// TestForeignFilters checks that lanyard's filters work with those of other projects, also of the
// same priority, that were added before and after them. Release must keep the other filters, and
// clsact.
func TestForeignFilters(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newIdleBench(t, o, testenv.Config{})
		b.AddGateway(0, "192.168.50.1/24")
		ends, _ := mustForeign(t, 0) // TC_ACT_OK: later programs do not see the frame
		for _, w := range ways {
			must(t, b.foreignFilter(w, ends, 1, 1, unix.ETH_P_ALL))
			must(t, b.foreignFilter(w, ends, 1, 5, unix.ETH_P_ALL))
		}
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkSees(t, "with other filters before lanyard's")
		for _, w := range ways {
			must(t, b.foreignFilter(w, ends, 1, 7, unix.ETH_P_ALL))
		}
		b.do(t, func() error { return b.Prepare(b.trunk) })
		b.checkSees(t, "with other filters after lanyard's")
		b.do(t, func() error { return b.Release(b.trunk) })
		for _, w := range ways {
			left := b.filters(t, w)
			if strings.Count(left, "foreign") != 3 || strings.Contains(left, filterName) {
				t.Errorf("filters on the %s after the release:\n%s", w.name, left)
			}
		}
		// Without the other filters, Prepare and Release leave nothing behind.
		for _, w := range ways {
			_, err := b.Host.Exec("tc", "filter", "del", "dev", b.Trunk, w.name)
			must(t, err)
		}
		b.do(t, func() error { return errors.Join(b.Prepare(b.trunk), b.Release(b.trunk)) })
		if got := b.qdiscs(t); o.Legacy && strings.Contains(got, "clsact") {
			t.Errorf("qdiscs after the last release: %s", got)
		}
	})
}

// TestForeignTCX checks that lanyard's TCX programs work with those of other projects. If one of
// these passes a frame (TCX_PASS), later programs do not see it: lanyard attaches its own before
// all existing ones.
func TestForeignTCX(t *testing.T) {
	const pass = 0
	b := newIdleBench(t, Options{}, testenv.Config{})
	b.AddGateway(0, "192.168.50.1/24")
	attach := func(w way, anchor link.Anchor, answer int32) error {
		p, _ := mustForeign(t, answer)
		return b.Host.Do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{Interface: b.trunk, Program: p, Attach: ebpf.AttachType(w.tcx),
				Anchor: anchor})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		})
	}
	if err := attach(egress, link.Tail(), pass); errors.Is(err, ebpf.ErrNotSupported) {
		checkOld(t)
		return
	} else {
		must(t, err)
	}
	must(t, attach(ingress, link.Tail(), pass))
	b.do(t, func() error { return b.Prepare(b.trunk) })
	b.checkSees(t, "with another TCX program, attached earlier")
	for _, w := range ways {
		must(t, attach(w, link.Tail(), pass))
		must(t, attach(w, link.Head(), -1))
	}
	b.do(t, func() error { return b.Prepare(b.trunk) })
	b.checkSees(t, "with other TCX programs around lanyard's")
	b.do(t, func() error { return b.Release(b.trunk) })
	for _, w := range ways {
		if left := b.chain(t, w); len(left) != 3 {
			t.Errorf("programs on the %s after the release: %v, want the other three", w.name, left)
		}
	}
}

// checkOld fails the test if the kernel is new enough for TCX (6.6).
func checkOld(tb testing.TB) {
	tb.Helper()
	var u unix.Utsname
	must(tb, unix.Uname(&u))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	must(tb, err)
	if major > 6 || major == 6 && minor >= 6 {
		tb.Errorf("Linux %d.%d has no TCX", major, minor)
	}
}

// TestHidden attaches another project's TCX program before lanyard's filter.
func TestHidden(t *testing.T) {
	b := newBench(t, Options{Legacy: true}, testenv.Config{})
	p, _ := mustForeign(t, -1)
	var l link.Link
	err := b.Host.Do(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: b.trunk, Program: p, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		checkOld(t)
		return
	}
	must(t, err)
	want := hiddenError(b.trunk, ingress).Error()
	b.do(t, func() error {
		want = hiddenError(b.trunk, ingress).Error()
		if err := b.Prepare(b.trunk); err == nil || err.Error() != want {
			t.Errorf("a filter after another TCX program: %v, want %q", err, want)
		}
		if err := errors.Join(b.Release(b.trunk)); err != nil {
			return err
		}
		if err := b.Prepare(b.trunk); err == nil ||
			!strings.Contains(err.Error(), "another project's TCX program comes first") {
			t.Errorf("attaching a filter after another TCX program: %v", err)
		}
		return l.Close()
	})
}

// TestClsactTaken checks the errors if clsact, or lanyard's filter in it, cannot have its place.
func TestClsactTaken(t *testing.T) {
	ends, _ := mustForeign(t, 0)
	for name, c := range map[string]struct {
		setup func(b *bench) error
		want  string
	}{
		"ingress qdisc": {
			func(b *bench) error {
				_, err := b.Host.Exec("tc", "qdisc", "add", "dev", b.Trunk, "ingress")
				return err
			},
			`attach to the egress of trunk "eth9": add clsact: qdisc "ingress" is in its place: replace it by clsact`,
		},
		"priority": {
			func(b *bench) error { return b.foreignFilter(ingress, ends, 1, filterPriority, unix.ETH_P_IP) },
			`attach to the ingress of trunk "eth9": add a filter of priority 1 to clsact: invalid argument: a filter of ` +
				`another kind has that priority: give it another priority`,
		},
		"handle": {
			func(b *bench) error {
				return b.foreignFilter(egress, ends, filterHandle, filterPriority, unix.ETH_P_ALL)
			},
			`attach to the egress of trunk "eth9": add a filter of priority 1 to clsact: file exists: another project's ` +
				`filter has lanyard's handle, 0x6c61: give it another handle`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIdleBench(t, Options{Legacy: true}, testenv.Config{})
			must(t, c.setup(b))
			before := b.qdiscs(t) + b.filters(t, egress) + b.filters(t, ingress)
			if err := b.Host.Do(func() error { return b.Prepare(b.trunk) }); err == nil || err.Error() != c.want {
				t.Errorf("Prepare: %v, want %q", err, c.want)
			}
			b.do(t, func() error { return b.Release(b.trunk) })
			if after := b.qdiscs(t) + b.filters(t, egress) + b.filters(t, ingress); after != before {
				t.Errorf("before and after:\n%s%s", before, after)
			}
		})
	}
}

// TestForeignPins checks the errors for pins that are not what their names say.
func TestForeignPins(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{})
	pin := filepath.Join(b.root.TrunkDir(b.trunk, layout), endpointsPin)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 16, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	defer m.Close()
	must(t, os.Rename(pin, pin+"0"))
	must(t, m.Pin(pin))
	want := fmt.Sprintf("open map %q: it is a Hash of 16 and 8 bytes, not a Hash of 8 and %d: another program made it; "+
		"remove it once the network has no containers", pin, unsafe.Sizeof(wireEndpoint{}))
	other := New(Options{Root: string(b.root)})
	defer other.Close()
	for what, err := range map[string]error{
		"Prepare": b.Host.Do(func() error { return other.Prepare(b.trunk) }),
		"Forget":  other.Forget(verify.Endpoint{Trunk: b.trunk, MAC: ownMAC}),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	must(t, os.Rename(pin+"0", pin))
}

// TestForeignOwner checks the errors for directories that another user created first.
func TestForeignOwner(t *testing.T) {
	b := newIdleBench(t, Options{}, testenv.Config{})
	path := string(b.root)
	for what, change := range map[string]func() error{
		"owned by another user":    func() error { return os.Chown(path, 1000, 1000) },
		"writable for other users": func() error { return os.Chmod(path, 0o777) },
	} {
		must(t, os.Mkdir(path, 0o700))
		must(t, change())
		for _, f := range []func() error{
			func() error { return b.Prepare(b.trunk) },
			func() error { return b.Forget(verify.Endpoint{Trunk: b.trunk, MAC: ownMAC}) },
			func() error { return b.Release(b.trunk) },
		} {
			if err := b.Host.Do(f); err == nil ||
				!strings.Contains(err.Error(), "another user could put pins there: remove it") {
				t.Errorf("a root that is %s: %v", what, err)
			}
		}
		must(t, os.Remove(path))
	}
	must(t, os.Symlink("/nowhere", path))
	if err := b.Host.Do(func() error { return b.Prepare(b.trunk) }); err == nil {
		t.Error("a root that is a symbolic link was followed")
	}
	must(t, os.Remove(path))
}
