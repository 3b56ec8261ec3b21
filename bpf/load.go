package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/hook/failpoint"
)

// ensureTrunk makes a trunk's pins complete: it removes the pins of devices that no longer exist,
// and loads what is missing. The lock is held.
func ensureTrunk(r pin.Root, ifindex int) error {
	all, err := r.List()
	if err != nil {
		return err
	}
	for _, p := range all {
		alive, err := deviceExists(p)
		if err == nil && !alive {
			err = r.Remove(p.Path)
		} else if err == nil && p.Ifindex == ifindex && p.Layout != layout {
			err = fmt.Errorf("another version of lanyard watches trunk %s: stop its containers, then remove %q", nameOf(ifindex),
				p.Path)
		}
		if err != nil && p.Ifindex == ifindex {
			return err
		}
	}
	if complete(r, ifindex) {
		return nil
	}
	if err := r.Remove(r.TrunkDir(ifindex, layout)); err != nil {
		return err
	}
	return loadTrunk(r, ifindex)
}

// complete reports whether a trunk has all its pins: another process may have removed some.
func complete(r pin.Root, ifindex int) bool {
	for _, name := range append([]string{emitPin, egress.name, ingress.name}, mapPins...) {
		if !exists(filepath.Join(r.TrunkDir(ifindex, layout), name)) {
			return false
		}
	}
	return true
}

// loadTrunk makes a trunk's maps and programs, pins them in a temporary directory, and renames that:
// a directory with the trunk's name is always complete. The lock is held.
func loadTrunk(r pin.Root, ifindex int) (err error) {
	if err = r.Clear(); err != nil {
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
		if err = os.MkdirAll(filepath.Join(r.Aside(), mark), 0o700); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.Clear()) }()
	if err = pinAll(o, r.Aside(), append([]string{egress.name, ingress.name, emitPin}, mapPins...)); err != nil {
		return err
	}
	failpoint.At("bpf-pins")
	return os.Rename(r.Aside(), r.TrunkDir(ifindex, layout))
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
