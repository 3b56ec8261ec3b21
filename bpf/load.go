package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/failpoint"
)

// ensureTrunk makes a trunk's pins complete: it removes the pins of devices that no longer exist, and
// loads what is missing. The lock is held.
func (r root) ensureTrunk(ifindex int) error {
	all, err := r.list()
	if err != nil {
		return err
	}
	for _, p := range all {
		alive, err := p.alive()
		if err == nil && !alive {
			err = r.remove(p.path)
		} else if err == nil && p.ifindex == ifindex && p.layout != layout {
			err = fmt.Errorf("another version of lanyard watches trunk %s: stop its containers, then remove %q", nameOf(ifindex),
				p.path)
		}
		if err != nil && p.ifindex == ifindex {
			return err
		}
	}
	if r.complete(ifindex) {
		return nil
	}
	if err := r.remove(r.trunkDir(ifindex)); err != nil {
		return err
	}
	return r.load(ifindex)
}

// complete reports whether a trunk has all its pins: another process may have removed some.
func (r root) complete(ifindex int) bool {
	for _, pin := range append([]string{emitPin, egress.name, ingress.name}, mapPins...) {
		if !exists(filepath.Join(r.trunkDir(ifindex), pin)) {
			return false
		}
	}
	return true
}

// load makes a trunk's maps and programs, pins them in a temporary directory, and renames that: a
// directory with the trunk's name is always complete. The lock is held.
func (r root) load(ifindex int) (err error) {
	if err = r.clear(); err != nil {
		return err
	}
	o, err := load(loadWire, nil, "")
	if err != nil {
		return err
	}
	defer o.Close()
	slot, device := uint32(0), uint32(ifindex)
	if err = update(o.Maps[devicePin], &slot, &device, ebpf.UpdateAny); err != nil {
		if errors.Is(err, unix.EINVAL) { // kernel/bpf/devmap.c, __dev_map_alloc_node
			err = unix.ENODEV
		}
		return fmt.Errorf("find trunk %s: %w", nameOf(ifindex), err)
	}
	netns, err := netnsMark()
	if err != nil {
		return err
	}
	for _, mark := range []string{netns, editionMark(edition)} {
		if err = os.MkdirAll(filepath.Join(r.aside(), mark), 0o700); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.clear()) }()
	if err = pinAll(o, r.aside(), append([]string{egress.name, ingress.name, emitPin}, mapPins...)); err != nil {
		return err
	}
	failpoint.At("bpf-pins")
	return os.Rename(r.aside(), r.trunkDir(ifindex))
}

// netnsMark returns the name of an empty directory among a trunk's pins. It identifies the network
// namespace: an ifindex is valid in one namespace only, and several namespaces may see the same
// root.
func netnsMark() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("find the network namespace: %w", err)
	}
	return fmt.Sprintf("netns-%d", st.Ino), nil
}

// checkNetns returns an error if the pins belong to a trunk in another network namespace: the
// device with that ifindex in this one is a different device.
func (t *trunk) checkNetns() error {
	mark, err := netnsMark()
	if err == nil && !exists(filepath.Join(t.path, mark)) {
		err = fmt.Errorf("%q belongs to a trunk of another network namespace: use another root in this one", t.path)
	}
	return err
}
