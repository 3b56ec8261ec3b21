package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// guardLayout is in the name of the pins, and changes with guard.c.
const guardLayout = 3

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
	defer func() { _ = errors.Join(m.Close(), unix.Close(prog)) }()
	for _, side := range []struct {
		from, to int
		flags    uint32
	}{{a.Inside, a.Outside, guardOutbound}, {a.Outside, a.Inside, 0}} {
		key, value := uint32(side.from), guardOf(a)
		value.To, value.Flags = uint32(side.to), side.flags
		if err := update(m, &key, value, unix.BPF_ANY); err != nil {
			if errors.Is(err, unix.E2BIG) {
				err = fmt.Errorf("there are %d guarded attachments, which is all that fit", m.entries/2)
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
	if err != nil || m.fd == 0 {
		return err
	}
	defer m.Close()
	keys := []uint32{uint32(a.Inside), uint32(a.Outside)}
	if a.Inside == 0 || a.Outside == 0 {
		if keys, err = guardsOf(m, a.Attachment); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if err := remove(m, &k); err != nil {
			return fmt.Errorf("forget guard of %s: %w", a.MAC, err)
		}
	}
	return nil
}

func guardsOf(m handle, id verify.ID) (keys []uint32, err error) {
	all, err := keysOf[uint32](m)
	for _, k := range all {
		var v guardGuard
		found, err := lookup(m, &k, &v, 0)
		if err != nil {
			return nil, err
		}
		if found && v.Attachment == id {
			keys = append(keys, k)
		}
	}
	return keys, err
}

// Guarded gives what has been let through and stopped.
func (g *Guards) Guarded(a verify.Guard) (c verify.Guarded, err error) {
	m, err := g.open(guardsPin)
	if err != nil {
		return c, err
	}
	if m.fd == 0 {
		return c, fmt.Errorf("nothing is guarded below %q", string(g.root))
	}
	defer m.Close()
	var in, out guardGuard
	for from, value := range map[int]*guardGuard{a.Inside: &out, a.Outside: &in} {
		key := uint32(from)
		found, err := lookup(m, &key, value, 0)
		if err == nil && !found {
			err = errNoRow
		}
		if err != nil {
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

// open opens one of the maps, the zero handle if there is none.
func (g *Guards) open(pin string) (handle, error) {
	dir, err := openDir(g.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return handle{}, nil
	}
	if err != nil {
		return handle{}, err
	}
	defer dir.Close()
	key := map[string]uintptr{guardsPin: 4, leasesPin: unsafe.Sizeof(guardLeaseKey{})}[pin]
	return openMap(filepath.Join(g.dir(), pin), unix.BPF_MAP_TYPE_HASH, key, unsafe.Sizeof(guardGuard{}))
}

// ready opens a map and the program that reads it, and loads all where they are
// not pinned.
func (g *Guards) ready(mapPin, progPin string) (m handle, prog int, err error) {
	lock, err := g.root.lock(true)
	if err != nil {
		return m, 0, err
	}
	defer lock.Close()
	m, err = g.open(mapPin)
	if err == nil && m.fd == 0 {
		if err = g.load(); err == nil {
			m, err = g.open(mapPin)
		}
	}
	if err != nil {
		return m, 0, err
	}
	if prog, err = openProgram(filepath.Join(g.dir(), progPin)); err != nil {
		return m, 0, errors.Join(err, m.Close())
	}
	return m, prog, nil
}

// load pins map and program aside before they get their name. The lock is held.
func (g *Guards) load() error {
	if err := g.root.clear(); err != nil {
		return err
	}
	o, err := guardObject.load(nil)
	if err != nil {
		return err
	}
	defer o.close()
	dir := g.root.aside()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err = o.pin(dir, []string{guardsPin, passPin, leasesPin, parentPin}); err == nil {
		err = os.Rename(dir, g.dir())
	}
	if err != nil {
		return errors.Join(plain(err), g.root.clear())
	}
	return nil
}
