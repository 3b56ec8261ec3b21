package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// errNoTCX is returned by attachTCX if the kernel has no TCX.
var errNoTCX = errors.New("the kernel has no TCX")

// attachTCX attaches a program before all others of a device's chain, so that none of them can end
// the chain before it, and pins the link. An existing pin belongs to a link that is not attached any
// more.
func attachTCX(ifindex int, w way, prog *ebpf.Program, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainErrno(err)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: w.tcx, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return errNoTCX
	}
	if err != nil {
		return explainErrno(err)
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin %q: %w", path, explainErrno(err))
	}
	return nil
}

// detachTCX detaches a pinned link, if it exists. Removing the pin alone would detach it, too, but
// later.
func detachTCX(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open link %q: %w", path, explainErrno(err))
	}
	defer l.Close()
	// ENOLINK: its device is gone (kernel/bpf/tcx.c).
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach link %q: %w", path, explainErrno(err))
	}
	return nil
}

// HasTCX reports whether the kernel has TCX.
func HasTCX() (bool, error) {
	const lo = 1 // every namespace has it, with this ifindex
	_, err := link.QueryPrograms(link.QueryOptions{Target: lo, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	return err == nil, explainErrno(err)
}

// queryTCX returns the ids of the programs that a device runs by TCX, in their order: none if the
// kernel has no TCX, or if the device does not exist.
func queryTCX(ifindex int, kind ebpf.AttachType) (ids []ebpf.ProgramID, err error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: kind})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return nil, err
	}
	for _, p := range result.Programs {
		ids = append(ids, p.ID)
	}
	return ids, nil
}
