package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// guardLayout is in the name of the pins, and changes with guard.c.
const guardLayout = 2

// Names of the pins in the guards' directory.
const (
	guardsPin = "guards"
	passPin   = "pass"
	leasesPin = "leases"
	parentPin = "parent"
)

// Flags in guard.c.
const (
	guardOutbound = 1
	guardHost     = 2
)

// reasons are guard.c's, in its order.
var reasons = []string{
	"", "short", "long", "tag", "source-mac", "protocol", "arp", "ipv4", "ipv6",
	"nd", "router", "dhcp", "hidden", "echo", "destination",
}

// Guards hold the frames of guarded attachments to their leases, with one
// program and one map for all below a root. Admit belongs on a thread in the
// namespace that has the links.
type Guards struct{ root root }

// NewGuards gives guards below a root, and touches nothing yet.
func NewGuards(o Options) *Guards { return &Guards{root(o.Root)} }

// Admit lets the attachment's frames pass between its two links, and only those
// that carry what it names. Admitting again replaces all but the counters' past.
func (g *Guards) Admit(a verify.Guard) error {
	if err := checkGuard(a); err != nil {
		return fmt.Errorf("guard %s: %w", a.MAC, err)
	}
	m, prog, err := g.ready(guardsPin, passPin)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(m.Close(), prog.Close()) }()
	for _, side := range []struct {
		from, to int
		flags    uint32
	}{{a.Inside, a.Outside, guardOutbound}, {a.Outside, a.Inside, 0}} {
		key, value := uint32(side.from), guardOf(a)
		value.To, value.Flags = uint32(side.to), side.flags
		if err := m.Update(unsafe.Pointer(&key), unsafe.Pointer(value), ebpf.UpdateAny); err != nil {
			if errors.Is(err, unix.E2BIG) {
				err = fmt.Errorf("there are %d guarded attachments, which is all that fit", m.MaxEntries()/2)
			}
			return fmt.Errorf("guard %s: %w", a.MAC, err)
		}
		if err := addFilter(side.from, ingress, prog); err != nil {
			return fmt.Errorf("guard %s: %w", a.MAC, err)
		}
	}
	return nil
}

// Forget lets no frame of the attachment's pass any more. Where the links are
// not known, it is looked for by its id.
func (g *Guards) Forget(a verify.Guard) error {
	m, err := g.open(guardsPin)
	if err != nil || m == nil {
		return err
	}
	defer m.Close()
	keys := []uint32{uint32(a.Inside), uint32(a.Outside)}
	if a.Inside == 0 || a.Outside == 0 {
		if keys, err = keysOf(m, a.Attachment); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if err := m.Delete(unsafe.Pointer(&k)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget guard of %s: %w", a.MAC, err)
		}
	}
	return nil
}

func keysOf(m *ebpf.Map, id verify.ID) (keys []uint32, err error) {
	var key uint32
	var value guardGuard
	all := m.Iterate()
	for all.Next(&key, &value) {
		if value.Attachment == id {
			keys = append(keys, key)
		}
	}
	return keys, all.Err()
}

// Guarded gives what has been let through and stopped.
func (g *Guards) Guarded(a verify.Guard) (c verify.Guarded, err error) {
	m, err := g.open(guardsPin)
	if err != nil {
		return c, err
	}
	if m == nil {
		return c, fmt.Errorf("nothing is guarded below %q", string(g.root))
	}
	defer m.Close()
	var in, out guardGuard
	for from, value := range map[int]*guardGuard{a.Inside: &out, a.Outside: &in} {
		key := uint32(from)
		if err := m.Lookup(unsafe.Pointer(&key), unsafe.Pointer(value)); err != nil {
			return c, fmt.Errorf("read the guard of %s: %w", a.MAC, err)
		}
	}
	return verify.Guarded{
		OutFrames: out.Frames, OutBytes: out.Bytes, InFrames: in.Frames, InBytes: in.Bytes,
		OutDropped: named(out.Dropped[:]), InDropped: named(in.Dropped[:]),
	}, nil
}

func named(counts []uint64) map[string]uint64 {
	byName := map[string]uint64{}
	for i, n := range counts {
		if n > 0 && i < len(reasons) {
			byName[reasons[i]] = n
		}
	}
	return byName
}

func guardOf(a verify.Guard) *guardGuard {
	v := &guardGuard{Mtu: uint32(a.MTU), Mac: a.MAC, LinkLocal: a.MAC.LinkLocal().As16(), Attachment: a.Attachment}
	for i, addr := range a.Addrs {
		v.Addrs[i] = addr.As16()
	}
	for i, addr := range a.Gateways {
		v.Gateways[i] = addr.As16()
	}
	return v
}

func checkGuard(a verify.Guard) error {
	if a.Inside == 0 || a.Outside == 0 || a.Inside == a.Outside {
		return errors.New("it has no two links")
	}
	return checkLease(a)
}

func (g *Guards) dir() string {
	return filepath.Join(string(g.root), fmt.Sprintf("guard-v%d", guardLayout))
}

// open opens one of the maps, nil if there is none.
func (g *Guards) open(pin string) (*ebpf.Map, error) {
	dir, err := openDir(g.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := filepath.Join(g.dir(), pin)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil, fmt.Errorf("open map %q: %w", path, plain(err))
	}
	key := map[string]uintptr{guardsPin: 4, leasesPin: unsafe.Sizeof(guardLeaseKey{})}[pin]
	if err := checkMap(m, path, ebpf.Hash, key, unsafe.Sizeof(guardGuard{})); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// ready opens a map and the program that reads it, and loads all where they are
// not pinned.
func (g *Guards) ready(mapPin, progPin string) (*ebpf.Map, *ebpf.Program, error) {
	lock, err := g.root.lock(true)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	m, err := g.open(mapPin)
	if err == nil && m == nil {
		if err = g.load(); err == nil {
			m, err = g.open(mapPin)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(g.dir(), progPin)
	prog, err := ebpf.LoadPinnedProgram(path, nil)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open program %q: %w", path, plain(err)), m.Close())
	}
	return m, prog, nil
}

// load pins map and program aside before they get their name. The lock is held.
func (g *Guards) load() error {
	if err := g.root.clear(); err != nil {
		return err
	}
	var o guardObjects
	if err := loadInto(loadGuardObjects, &o, nil); err != nil {
		return err
	}
	defer func() { _ = o.Close() }()
	dir := g.root.aside()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	err := errors.Join(
		o.Guards.Pin(filepath.Join(dir, guardsPin)), o.Pass.Pin(filepath.Join(dir, passPin)),
		o.Leases.Pin(filepath.Join(dir, leasesPin)), o.Parent.Pin(filepath.Join(dir, parentPin)),
	)
	if err == nil {
		err = os.Rename(dir, g.dir())
	}
	if err != nil {
		return errors.Join(plain(err), g.root.clear())
	}
	return nil
}
