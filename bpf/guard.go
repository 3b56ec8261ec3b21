package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/verify"
)

// guardLayout is the version of guard.c: of its code and of its maps' types. It is part of the pin
// directory's name. Increment it when either changes.
const guardLayout = 7

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
	guardAutoconf = 4
	guardAsks     = 8
)

// reasons are the names of enum reason in guard.c, in its order.
var reasons = []string{
	"", "short", "long", "tag", "source-mac", "protocol", "arp", "ipv4", "ipv6",
	"nd", "router", "dhcp", "hidden", "echo", "destination",
}

// Guards enforce permits. For all guarded attachments below a root there are one program and one map,
// and another pair for the parents that are guarded. Admit must be called on a thread in the namespace of the links.
type Guards struct{ root pin.Root }

// NewGuards returns the guards below a root. It does nothing yet.
func NewGuards(o Options) *Guards { return &Guards{pin.Root(o.Root)} }

// Admit passes the attachment's frames between its two links, if they match the MAC and the
// addresses of a. If it is called again, it replaces the permit and resets the counters. It returns
// an error if a is incomplete, or if the map is full.
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
		value.To, value.Flags = uint32(side.to), value.Flags|side.flags
		if err := update(m, &key, value, ebpf.UpdateAny); err != nil {
			if errors.Is(err, unix.E2BIG) {
				err = fmt.Errorf("the map is full, with %d guarded attachments", m.MaxEntries()/2)
			}
			return fmt.Errorf("guard %s: %w", a.MAC, err)
		}
		if err := addFilter(side.from, ingress, prog); err != nil {
			return fmt.Errorf("guard %s: %w", a.MAC, err)
		}
	}
	return nil
}

// Forget stops all frames of the attachment. If a does not name both links, Forget finds them by
// the attachment's id. It returns nil if there is no guard.
func (g *Guards) Forget(a verify.Guard) error {
	m, err := g.open(guardsPin)
	if err != nil || m == nil {
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

func guardsOf(m *ebpf.Map, id verify.ID) (keys []uint32, err error) {
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

// Guarded returns how many frames of the attachment were passed and dropped. It returns an error if
// the attachment is not guarded.
func (g *Guards) Guarded(a verify.Guard) (c verify.Guarded, err error) {
	m, err := g.open(guardsPin)
	if err != nil {
		return c, err
	}
	if m == nil {
		return c, fmt.Errorf("there is no guard below %q", string(g.root))
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
		OutDropped: byReason(out.Dropped[:]), InDropped: byReason(in.Dropped[:]),
	}, nil
}

// byReason returns the counts that are not zero, by the name of the reason.
func byReason(counts []uint64) map[string]uint64 {
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
	if a.Autoconf {
		v.Flags = guardAutoconf
	}
	if a.Asks {
		v.Flags |= guardAsks
	}
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
		return errors.New("it needs two different links")
	}
	return checkLease(a)
}

func (g *Guards) dir() string {
	return filepath.Join(string(g.root), fmt.Sprintf("guard-v%d", guardLayout))
}

// open opens one of the maps. It returns nil if nothing is pinned.
func (g *Guards) open(name string) (*ebpf.Map, error) {
	dir, err := pin.OpenDir(g.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	key := map[string]uintptr{guardsPin: 4, leasesPin: unsafe.Sizeof(guardLeaseKey{})}[name]
	return openMap(filepath.Join(g.dir(), name), ebpf.Hash, key, unsafe.Sizeof(guardGuard{}))
}

// ready opens a map and the program that reads it. If they are not pinned, it loads the program and
// all maps first.
func (g *Guards) ready(mapPin, progPin string) (m *ebpf.Map, prog *ebpf.Program, err error) {
	lock, err := g.root.Lock(true)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	m, err = g.open(mapPin)
	if err == nil && m == nil {
		if err = g.load(); err == nil {
			m, err = g.open(mapPin)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if prog, err = openProgram(filepath.Join(g.dir(), progPin)); err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	return m, prog, nil
}

// load loads and pins the maps and programs. The lock is held.
func (g *Guards) load() error {
	o, err := load(loadGuard, nil, "")
	if err != nil {
		return err
	}
	defer o.Close()
	return explainErrno(g.root.Build(g.dir(), func(dir string) error {
		return pinAll(o, dir, []string{guardsPin, passPin, leasesPin, parentPin})
	}))
}
