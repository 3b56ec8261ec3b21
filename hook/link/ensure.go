package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EnsureParent finds the parent of that name, checks that it can carry
// macvlans and, where it is named BASE.VID, that it really is that VLAN on that
// base. A missing one is made, up and marked as ours, if create says so; a
// marked one that is down is set up. A link that is not ours is never changed.
func (h *Host) EnsureParent(ctx context.Context, name string, create bool) (p Parent, created bool, err error) {
	base, vid, err := ParseParent(name)
	if err != nil {
		return Parent{}, false, fmt.Errorf("parent %w", err)
	}
	p, l, err := h.find(name, base, vid)
	if vid != 0 && create && (errors.Is(err, ErrNoLink) || err == nil && !isUp(l)) {
		p, created, err = h.ensureVLAN(ctx, name, base, vid)
	}
	if err != nil {
		return Parent{}, false, fmt.Errorf("parent %q: %w", name, err)
	}
	return p, created, nil
}

func isUp(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_UP != 0 }

// ensureVLAN makes the link, or finishes it: what we make is up last of all.
func (h *Host) ensureVLAN(ctx context.Context, name, base string, vid uint16) (p Parent, created bool, err error) {
	lock, err := h.lockParent(ctx, name)
	if err != nil {
		return Parent{}, false, err
	}
	defer lock.Close()
	p, l, err := h.find(name, base, vid) // again: another may have made it meanwhile
	switch {
	case errors.Is(err, ErrNoLink):
		created = true
		err = h.makeVLAN(lock, name, base, vid)
	case err == nil && !isUp(l) && (p.Ours || lock.unfinished()):
		err = h.finishVLAN(lock, l)
	default:
		return p, false, err
	}
	if err == nil {
		p, _, err = h.find(name, base, vid)
	}
	return p, created, err
}

func (h *Host) makeVLAN(lock *parentLock, name, base string, vid uint16) (err error) {
	below, err := linkByName(h.handle, base)
	switch {
	case err != nil:
		return err
	case below == nil:
		return fmt.Errorf("%w, nor %q to make it on", ErrNoLink, base)
	case !isUp(below):
		return fmt.Errorf("cannot be made while %q is down: set it up first (ip link set %s up)", base, base)
	case below.Attrs().EncapType != "ether":
		return fmt.Errorf("cannot be made: %q is not an Ethernet link (%s)", base, below.Attrs().EncapType)
	}
	if err = lock.begin(); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, below.Attrs().Index
	link := &netlink.Vlan{LinkAttrs: attrs, VlanId: int(vid), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	if err = h.handle.LinkAdd(link); err != nil {
		return errors.Join(h.whyNoVLAN(err, below.Attrs(), vid), lock.end())
	}
	if err = h.finishVLAN(lock, link); err != nil {
		return errors.Join(err, h.handle.LinkDel(link), lock.end())
	}
	return nil
}

func (h *Host) whyNoVLAN(err error, below *netlink.LinkAttrs, vid uint16) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("cannot be made: the kernel has no 802.1Q VLANs (modprobe 8021q)")
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("make it: %w", plain(err))
	}
	links, listErr := whole(h.handle.LinkList)
	for _, l := range links {
		if v, ok := l.(*netlink.Vlan); ok && v.ParentIndex == below.Index && v.NetNsID < 0 && v.VlanId == int(vid) {
			return fmt.Errorf("cannot be made: VLAN %d on %q is there already, as %q: use that as parent", vid, below.Name, v.Name)
		}
	}
	return errors.Join(fmt.Errorf("cannot be made: VLAN %d on %q is there already, perhaps in another network namespace", vid, below.Name), listErr)
}

// finishVLAN marks a new link, closes it to the host and sets it up.
func (h *Host) finishVLAN(lock *parentLock, l netlink.Link) error {
	name := l.Attrs().Name
	if err := h.handle.LinkSetAlias(l, mark); err != nil {
		return fmt.Errorf("mark it: %w", plain(err))
	}
	// The link is there for containers. Left to itself, the host would take an
	// address and a default route from whoever sends router advertisements in
	// that VLAN, and answer ARP for its addresses on other links.
	err := inside(h.fd, func() error {
		return errors.Join(writeSysctl("ipv6/conf/"+name+"/disable_ipv6", "1"), writeSysctl("ipv4/conf/"+name+"/arp_ignore", "1"))
	})
	if err != nil {
		return err
	}
	if err := h.handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("set it up: %w", plain(err))
	}
	return lock.end()
}

// RemoveParent deletes a VLAN sub-interface that carries our mark. A missing
// one is no error; one that is not ours gives ErrForeign and stays.
// The kernel deletes all macvlans on it, in every namespace: the caller has
// made sure that there are none.
func (h *Host) RemoveParent(ctx context.Context, name string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("remove parent %s: %w", clip(name), err)
		}
	}()
	if err = ValidName(name); err != nil {
		return err
	}
	lock, err := h.lockParent(ctx, name)
	if err != nil {
		return err
	}
	defer lock.Close()
	l, err := linkByName(h.handle, name)
	if err != nil || l == nil {
		return err
	}
	if l.Type() != "vlan" || l.Attrs().Alias != mark {
		return ErrForeign
	}
	if err = h.handle.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return plain(err)
	}
	return nil
}

// parentLock is held by whoever makes or deletes a parent. Its file is empty
// but while a link is being made: the kernel takes no alias in the message that
// makes one (rtnl_create_link), so that is how the next holder knows that a
// link without our mark is what a killed one left.
type parentLock struct{ *os.File }

// lockParent waits for the lock until ctx ends. Closing frees it; so does the
// holder's death. The file stays: deleting it would let two hold it.
func (h *Host) lockParent(ctx context.Context, name string) (*parentLock, error) {
	if err := os.MkdirAll(h.lockDir, 0o755); err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(h.lockDir, "parent-"+name+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	err = retry(ctx, func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }, unix.EWOULDBLOCK, unix.EINTR)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock it (%s): %w", f.Name(), err), f.Close())
	}
	return &parentLock{f}, nil
}

func (l *parentLock) begin() error {
	_, err := l.WriteAt([]byte("making\n"), 0)
	return err
}

func (l *parentLock) end() error { return l.Truncate(0) }

func (l *parentLock) unfinished() bool {
	info, err := l.Stat()
	return err == nil && info.Size() > 0
}

// retry calls f until it answers anything but one of the passing errors, or ctx
// ends; then the last of those comes back.
func retry(ctx context.Context, f func() error, passing ...error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for wait := time.Millisecond; ; wait = min(2*wait, 16*time.Millisecond) {
		err := f()
		if !isOneOf(err, passing) {
			return err
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return err
		case <-timer.C:
		}
	}
}

func isOneOf(err error, those []error) bool {
	for _, e := range those {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
