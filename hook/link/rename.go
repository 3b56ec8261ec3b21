package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RenameParent gives a VLAN that carries our mark the name in want, if that VLAN has another name:
// one from before the link below it was renamed. It does the same to the VLAN below a VLAN (QinQ)
// first. It returns nil if there is no such VLAN, if a link has the name already, or if kept returns
// true for the present name.
func (h *Host) RenameParent(ctx context.Context, want ParentSpec, kept func(name string) bool) error {
	base, tag, err := want.vlan()
	if err != nil || tag.VID == 0 {
		return err
	}
	if err := h.RenameParent(ctx, base, kept); err != nil {
		return err
	}
	lock, err := h.lockParent(ctx, want.Name)
	if err != nil {
		return fmt.Errorf("parent %q: %w", want.Name, err)
	}
	defer lock.Close()
	taken, err := linkByName(h.handle, want.Name)
	if err != nil || taken != nil {
		return err
	}
	p, err := h.FindRenamed(want)
	if err != nil || p == nil || kept(p.Name) {
		return err
	}
	l, err := linkByIndex(h.handle, p.Index)
	if err != nil || l == nil {
		return err
	}
	if err := h.rename(l, want.Name); err != nil {
		return fmt.Errorf("rename %q to %q: %w", p.Name, want.Name, explainErrno(err))
	}
	return nil
}

// rename renames a link. Below Linux 6.2 it must be down for that (dev_change_name): the links on it
// are then without a carrier for a moment, and keep their addresses and routes.
func (h *Host) rename(l netlink.Link, name string) error {
	err := h.handle.LinkSetName(l, name)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := h.handle.LinkSetDown(l); err != nil {
		return err
	}
	err = h.handle.LinkSetName(l, name)
	up := h.handle.LinkSetUp(l)
	if errors.Is(up, unix.ENETDOWN) {
		up = nil // the kernel sets it up with the link below
	}
	return errors.Join(err, up)
}
