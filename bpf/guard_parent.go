package bpf

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
)

// parentEgress is where the guard of a parent hangs.
var parentEgress = way{"guard", unix.BPF_TCX_EGRESS, netlink.HANDLE_MIN_EGRESS, guardHandle}

// Hold lets leave by a parent what carries a lease, or one of the host's MACs,
// and nothing else. Holding again adds MACs. It belongs on a thread in the
// parent's namespace; leases are admitted before, or what they send meanwhile is
// dropped.
func (g *Guards) Hold(parent int, host []verify.MAC) error {
	m, prog, err := g.ready(leasesPin, parentPin)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(m.Close(), unix.Close(prog)) }()
	for _, mac := range append([]verify.MAC{{}}, host...) {
		v := &guardGuard{Flags: guardHost}
		err := update(m, leaseKey(parent, mac), v, unix.BPF_NOEXIST)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("guard parent %s: %w", nameOf(parent), err)
		}
	}
	// Whatever a TCX program of others answers, but for TCX_NEXT, no filter sees.
	chain, err := queryTCX(parent, unix.BPF_TCX_EGRESS)
	if err != nil {
		return fmt.Errorf("guard parent %s: %w", nameOf(parent), plain(err))
	}
	own, _ := pinnedID(filepath.Join(g.root.trunkDir(parent), egress.name)) // 0 where it is no trunk
	for _, id := range chain {
		if id != own {
			return hidden(parent, parentEgress)
		}
	}
	return addFilter(parent, parentEgress, prog)
}

// Held reports whether a parent is held.
func (g *Guards) Held(parent int) (bool, error) {
	m, err := g.open(leasesPin)
	if err != nil || m.fd == 0 {
		return false, err
	}
	defer m.Close()
	v := new(guardGuard)
	found, err := lookup(m, leaseKey(parent, verify.MAC{}), v, 0)
	if !found || err != nil {
		return false, err
	}
	id, err := filterProgram(parent, parentEgress)
	return id != 0, err
}

// Lease lets leave by a parent what carries a's lease. Of a, the links do not
// matter.
func (g *Guards) Lease(parent int, a verify.Guard) error {
	if err := checkLease(a); err != nil {
		return fmt.Errorf("guard %s: %w", a.MAC, err)
	}
	m, prog, err := g.ready(leasesPin, parentPin)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(m.Close(), unix.Close(prog)) }()
	if err := update(m, leaseKey(parent, a.MAC), guardOf(a), unix.BPF_ANY); err != nil {
		if errors.Is(err, unix.E2BIG) {
			err = fmt.Errorf("there are %d, which is all that fit", m.entries)
		}
		return fmt.Errorf("guard %s on parent %s: %w", a.MAC, nameOf(parent), err)
	}
	return nil
}

// Unlease ends it: nothing of that MAC leaves by the parent any more.
func (g *Guards) Unlease(parent int, mac verify.MAC) error {
	m, err := g.open(leasesPin)
	if err != nil || m.fd == 0 {
		return err
	}
	defer m.Close()
	if err := remove(m, leaseKey(parent, mac)); err != nil {
		return fmt.Errorf("forget guard of %s: %w", mac, err)
	}
	return nil
}

// Leased gives what a MAC has sent by a parent, and what it was not let. With no
// MAC it is what nobody is known to send.
func (g *Guards) Leased(parent int, mac verify.MAC) (c verify.Guarded, err error) {
	m, err := g.open(leasesPin)
	if err != nil || m.fd == 0 {
		return c, err
	}
	defer m.Close()
	v := new(guardGuard)
	found, err := lookup(m, leaseKey(parent, mac), v, 0)
	if err == nil && !found {
		err = errNoRow
	}
	if err != nil {
		return c, fmt.Errorf("read the guard of %s: %w", mac, err)
	}
	return verify.Guarded{OutFrames: v.Frames, OutBytes: v.Bytes, OutDropped: named(v.Dropped[:])}, nil
}

// Free lets all leave by a parent again.
func (g *Guards) Free(parent int) error {
	m, err := g.open(leasesPin)
	if err != nil || m.fd == 0 {
		return err
	}
	defer m.Close()
	keys, err := keysOf[guardLeaseKey](m)
	for _, k := range keys {
		if k.Parent == uint32(parent) {
			err = errors.Join(err, remove(m, &k))
		}
	}
	had, ferr := removeFilter(parent, parentEgress)
	if err = errors.Join(err, ferr); err == nil && had {
		err = removeEmptyQdisc(parent)
	}
	return err
}

func leaseKey(parent int, mac verify.MAC) *guardLeaseKey {
	return &guardLeaseKey{Parent: uint32(parent), Mac: mac}
}

func checkLease(a verify.Guard) error {
	if a.MTU <= 0 {
		return errors.New("it has no MTU")
	}
	return check(verify.Endpoint{MAC: a.MAC, Addrs: a.Addrs, Gateways: a.Gateways})
}
