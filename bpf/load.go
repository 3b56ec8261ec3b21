package bpf

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/bpf/pin"
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
		if !pin.Exists(filepath.Join(r.TrunkDir(ifindex, layout), name)) {
			return false
		}
	}
	return true
}

// loadTrunk loads and pins a trunk's maps and programs. The lock is held.
func loadTrunk(r pin.Root, ifindex int) error {
	o, err := load(loadWire, nil, "")
	if err != nil {
		return err
	}
	defer o.Close()
	slot, device := uint32(0), uint32(ifindex)
	if err := update(o.Maps[devicePin], &slot, &device, ebpf.UpdateAny); err != nil {
		if errors.Is(err, unix.EINVAL) { // kernel/bpf/devmap.c, __dev_map_alloc_node
			err = unix.ENODEV
		}
		return fmt.Errorf("find trunk %s: %w", nameOf(ifindex), err)
	}
	return r.Build(r.TrunkDir(ifindex, layout), func(dir string) error {
		if err := errors.Join(pin.MarkNetns(dir), pin.MarkEdition(dir, edition)); err != nil {
			return err
		}
		return pinAll(o, dir, append([]string{egress.name, ingress.name, emitPin}, mapPins...))
	})
}
