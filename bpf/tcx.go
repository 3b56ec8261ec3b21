package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// errNoTCX is returned by attachTCX where the kernel has none.
var errNoTCX = errors.New("the kernel has no TCX")

// attachTCX puts a program before all others of a device's chain, so that none
// of them can end the chain before it, and pins the link. A pin that is there is
// of a link that is not attached any more.
func attachTCX(ifindex int, w way, prog int, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainErrno(err)
	}
	link, err := linkTCX(ifindex, prog, w.tcx)
	if errors.Is(err, unix.EINVAL) && !hasTCX(w.tcx) {
		return errNoTCX
	}
	if err != nil {
		return explainErrno(err)
	}
	defer unix.Close(link)
	return pin(link, path)
}

// detachTCX detaches a pinned link, if there is one. Removing the pin alone would
// do so, too, but later.
func detachTCX(path string) error {
	link, err := objGet(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open link %q: %w", path, explainErrno(err))
	}
	defer unix.Close(link)
	// ENOLINK: its device is gone (kernel/bpf/tcx.c).
	if err := detachLink(link); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach link %q: %w", path, explainErrno(err))
	}
	return nil
}
