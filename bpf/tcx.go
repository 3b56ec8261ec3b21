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

// attachTCX puts a program before all others of a device's chain, so that none
// of them can end the chain before it, and pins the link. A pin that is there is
// of a link that is not attached any more. ErrNotSupported where the kernel has
// no TCX.
func attachTCX(ifindex int, w way, prog *ebpf.Program, pin string) error {
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plain(err)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: w.tcx, Anchor: link.Head()})
	if err != nil {
		return plain(err)
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin it: %w", plain(err))
	}
	return nil
}

// detachTCX detaches a pinned link, if there is one. Removing the pin alone would
// do so, too, but later.
func detachTCX(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open link %q: %w", pin, plain(err))
	}
	defer l.Close()
	// ENOLINK: its device is gone (kernel/bpf/tcx.c).
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach link %q: %w", pin, plain(err))
	}
	return nil
}
