package bpf

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// parentEgress is the egress of a parent, with the filter's handle of the guard.
var parentEgress = way{"guard", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS, guardHandle}

// GuardParent starts to guard a parent, given by its ifindex: a frame leaves only if it matches a permit,
// or carries the parent's MAC or one of the host's other MACs on it. If it is called again, it adds
// MACs. It must be called on a thread in the parent's namespace. Call Permit for all existing containers
// before, since GuardParent drops the frames of MACs without a permit.
func (g *Guards) GuardParent(parent int, host []ether.MAC) error {
	m, prog, err := g.ready(leasesPin, parentPin)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(m.Close(), prog.Close()) }()
	for _, mac := range append([]ether.MAC{{}}, host...) {
		v := &guardGuard{Flags: guardHost}
		err := update(m, leaseKey(parent, mac), v, ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("guard parent %s: %w", nameOf(parent), err)
		}
	}
	// Frames that another project's TCX program answers, except with TCX_NEXT, do not reach a
	// filter.
	chain, err := queryTCX(parent, ebpf.AttachTCXEgress)
	if err != nil {
		return fmt.Errorf("guard parent %s: %w", nameOf(parent), explainErrno(err))
	}
	own, _ := pinnedID(filepath.Join(g.root.TrunkDir(parent, layout), egress.name)) // 0 if the parent is not a trunk
	for _, id := range chain {
		if id != own {
			return hiddenError(parent, parentEgress)
		}
	}
	return addFilter(parent, parentEgress, prog)
}

// ParentGuarded reports whether a parent, given by its ifindex, is guarded.
func (g *Guards) ParentGuarded(parent int) (bool, error) {
	m, err := g.open(leasesPin)
	if err != nil || m == nil {
		return false, err
	}
	defer m.Close()
	v := new(guardGuard)
	found, err := lookup(m, leaseKey(parent, ether.MAC{}), v, 0)
	if !found || err != nil {
		return false, err
	}
	id, err := filterProgram(parent, parentEgress)
	return id != 0, err
}

// Permit lets frames that match a leave by a parent, given by its ifindex. It does not use the
// links of a. It returns an error if a is incomplete, or if the map is full.
func (g *Guards) Permit(parent int, a verify.Guard) error {
	if err := checkLease(a); err != nil {
		return fmt.Errorf("guard %s: %w", a.MAC, err)
	}
	m, prog, err := g.ready(leasesPin, parentPin)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(m.Close(), prog.Close()) }()
	if err := update(m, leaseKey(parent, a.MAC), guardOf(a), ebpf.UpdateAny); err != nil {
		if errors.Is(err, unix.E2BIG) {
			err = fmt.Errorf("the map is full, with %d entries", m.MaxEntries())
		}
		return fmt.Errorf("guard %s on parent %s: %w", a.MAC, nameOf(parent), err)
	}
	return nil
}

// Revoke removes the permit of a MAC: its frames no longer leave by the parent, given by its
// ifindex.
func (g *Guards) Revoke(parent int, mac ether.MAC) error {
	m, err := g.open(leasesPin)
	if err != nil || m == nil {
		return err
	}
	defer m.Close()
	if err := remove(m, leaseKey(parent, mac)); err != nil {
		return fmt.Errorf("forget guard of %s: %w", mac, err)
	}
	return nil
}

// Permitted returns how many frames of a MAC left by a parent, given by its ifindex, and how many were
// dropped. For the zero MAC it counts the frames of all unleased MACs.
func (g *Guards) Permitted(parent int, mac ether.MAC) (c verify.Guarded, err error) {
	m, err := g.open(leasesPin)
	if err != nil || m == nil {
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
	return verify.Guarded{OutFrames: v.Frames, OutBytes: v.Bytes, OutDropped: byReason(v.Dropped[:])}, nil
}

// UnguardParent stops guarding a parent, given by its ifindex: all frames leave again.
func (g *Guards) UnguardParent(parent int) error {
	m, err := g.open(leasesPin)
	if err != nil || m == nil {
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

func leaseKey(parent int, mac ether.MAC) *guardLeaseKey {
	return &guardLeaseKey{Parent: uint32(parent), Mac: mac}
}

func checkLease(a verify.Guard) error {
	if a.MTU <= 0 {
		return errors.New("it needs an MTU")
	}
	return checkEndpoint(verify.Endpoint{MAC: a.MAC, Addrs: a.Addrs, Gateways: a.Gateways})
}
