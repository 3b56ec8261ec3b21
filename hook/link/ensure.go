package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// EnsureParent finds the parent, checks that it can carry macvlans or ipvlans and, if it is named
// BASE.VID, that it is that VLAN on that base. If create is true, it creates a missing VLAN or
// dummy, marks it with Lanyard's alias and sets it up; for QinQ also the missing VLAN below it. It
// sets a link with that mark up if it is down, and changes no other link. It returns an error that
// wraps ErrNoLink if the parent does not exist. created reports whether it created the parent.
func (h *Host) EnsureParent(ctx context.Context, want ParentSpec, create bool) (p Parent, created bool, err error) {
	base, tag, err := want.vlan()
	if err != nil {
		return Parent{}, false, err
	}
	p, l, err := h.find(want, base.Name, tag)
	if (tag.VID != 0 || want.Dummy) && create && (errors.Is(err, ErrNoLink) || err == nil && !isUp(l)) {
		p, created, err = h.ensureOurs(ctx, want, base, tag)
	}
	if err != nil {
		return Parent{}, false, fmt.Errorf("parent %q: %w", want.Name, err)
	}
	return p, created, nil
}

func isUp(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_UP != 0 }

// ensureOurs creates the link or, if it is down, finishes it: a new link is set up last.
func (h *Host) ensureOurs(ctx context.Context, want, base ParentSpec, tag ether.Tag) (p Parent, created bool,
	err error) {
	lock, err := h.lockParent(ctx, want.Name)
	if err != nil {
		return Parent{}, false, err
	}
	defer lock.Close()
	p, l, err := h.find(want, base.Name, tag) // again, under the lock
	switch {
	case errors.Is(err, ErrNoLink):
		created = true
		err = h.makeOurs(ctx, lock, want, base, tag)
	case err == nil && !isUp(l) && (p.Ours || lock.unfinished()):
		err = h.finish(lock, l)
	default:
		return p, false, err
	}
	if err == nil {
		p, _, err = h.find(want, base.Name, tag)
	}
	return p, created, err
}

// makeOurs creates a dummy, or a VLAN and the VLAN below it. Locks are acquired from the
// inner VLAN to the outer: eth0.100.200 before eth0.100.
func (h *Host) makeOurs(ctx context.Context, lock *parentLock, want, base ParentSpec, tag ether.Tag) (err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = want.Name
	if want.Dummy {
		return h.add(lock, &netlink.Dummy{LinkAttrs: attrs}, func(err error) error {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return errors.New("cannot create it: the kernel has no dummy links: run \"modprobe dummy\"")
			}
			return fmt.Errorf("cannot create it: %w", explainErrno(err))
		})
	}
	below, err := linkByName(h.handle, base.Name)
	if _, outer, _ := base.vlan(); err == nil && outer.VID != 0 && (below == nil || isOurs(below) && !isUp(below)) {
		var baseMade bool
		if _, baseMade, err = h.EnsureParent(ctx, base, true); err == nil {
			below, err = linkByName(h.handle, base.Name)
		}
		defer func() {
			if err != nil && baseMade {
				err = errors.Join(err, h.RemoveParent(ctx, base.Name, neverNeeded))
			}
		}()
	}
	switch {
	case err != nil:
		return err
	case below == nil:
		return fmt.Errorf("%w, and no link %q to create it on", ErrNoLink, base.Name)
	case !isUp(below):
		return fmt.Errorf("cannot create it: %q is down: run \"ip link set %s up\"", base.Name, base.Name)
	case below.Attrs().EncapType != "ether":
		return fmt.Errorf("cannot create it: %q is not an Ethernet link (%s)", base.Name, below.Attrs().EncapType)
	}
	attrs.ParentIndex = below.Attrs().Index
	vlan := &netlink.Vlan{
		LinkAttrs: attrs, VlanId: int(tag.VID), VlanProtocol: netlink.VlanProtocol(tag.TPID),
		Gvrp: &want.GVRP, Mvrp: &want.MVRP,
	}
	return h.add(lock, vlan, func(err error) error { return h.explainVLAN(err, below.Attrs(), tag) })
}

// add creates a link and finishes it. On error it deletes the link.
func (h *Host) add(lock *parentLock, l netlink.Link, why func(error) error) error {
	if err := lock.begin(); err != nil {
		return err
	}
	if err := h.handle.LinkAdd(l); err != nil {
		return errors.Join(why(err), lock.end())
	}
	if err := h.finish(lock, l); err != nil {
		return errors.Join(err, h.handle.LinkDel(l), lock.end())
	}
	return nil
}

func (h *Host) explainVLAN(err error, below *netlink.LinkAttrs, tag ether.Tag) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("cannot create it: the kernel has no 802.1Q VLANs: run \"modprobe 8021q\"")
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("cannot create it: %w", explainErrno(err))
	}
	links, listErr := dump(h.handle.LinkList)
	for _, l := range links {
		if v, ok := l.(*netlink.Vlan); ok && v.ParentIndex == below.Index && v.NetNsID < 0 && v.VlanId == int(tag.VID) &&
			protoOf(v) == tag.TPID {
			return fmt.Errorf("cannot create it: %s on %q exists already, as %q: use that as parent", tag, below.Name, v.Name)
		}
	}
	return errors.Join(fmt.Errorf("cannot create it: %s on %q exists already, perhaps in another network namespace",
		tag, below.Name), listErr)
}

// finish marks a new link, disables the host's use of it and sets it up.
func (h *Host) finish(lock *parentLock, l netlink.Link) error {
	name := l.Attrs().Name
	if err := h.handle.LinkSetAlias(l, mark); err != nil {
		return fmt.Errorf("set its alias: %w", explainErrno(err))
	}
	// The link is for containers. Without these settings, the host would accept an
	// address and a default route from any router advertisement in that VLAN, and
	// answer ARP there for addresses of its other links.
	err := h.Do(func() error {
		return errors.Join(writeSysctl("ipv6/conf/"+name+"/disable_ipv6", "1"),
			writeSysctl("ipv4/conf/"+name+"/arp_ignore", "1"))
	})
	if err != nil {
		return err
	}
	// ENETDOWN: the link below is down (vlan_dev_open). The kernel sets the VLAN up with it
	// (vlan_device_event), and until then the verdict says that the parent is down.
	if err := h.handle.LinkSetUp(l); err != nil && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("cannot set it up: %w", explainErrno(err))
	}
	return lock.end()
}

// RemoveParent deletes a VLAN or dummy that carries our mark. It also deletes the VLAN
// below it, if that carries our mark, no other link uses it, and needed returns false for
// its name. It returns nil for a missing link, and ErrForeign for one that is not ours,
// which it keeps. The kernel deletes all macvlans on the link, in every namespace; the
// caller must make sure that there are none.
func (h *Host) RemoveParent(ctx context.Context, name string, needed func(name string) bool) error {
	return h.RemoveParents(ctx, []string{name}, needed)[name]
}

// RemoveParents deletes several parents, as RemoveParent does one. It returns an error for
// each name that it could not delete, or could delete without its outer VLAN. The kernel
// waits for RCU once for all of them.
func (h *Host) RemoveParents(
	ctx context.Context, names []string, needed func(name string) bool,
) (stay map[string]error) {
	stay = map[string]error{}
	var removals []removal
	for _, name := range names {
		g, err := h.lockForRemoval(ctx, name)
		if err != nil {
			stay[name] = err
		} else if g.link != nil {
			removals = append(removals, g)
		}
	}
	err := h.delete(removals)
	bases := map[string]string{} // name of a VLAN → a deleted VLAN that was on it
	for _, g := range removals {
		stays := err
		if stays == nil {
			stays = g.lock.end()
		}
		g.lock.Close()
		if stays != nil {
			stay[g.name] = stays
		} else if base, vid, err := ParseParent(g.name); err == nil && vid != 0 {
			bases[base] = g.name
		}
	}
	for base, name := range bases {
		if err := h.removeBase(ctx, base, needed); err != nil {
			stay[name] = err
		}
	}
	for name, err := range stay {
		stay[name] = fmt.Errorf("remove parent %s: %w", clip(name), err)
	}
	return stay
}

// removal is a link that is about to be deleted, and its lock.
type removal struct {
	name string
	link netlink.Link // nil if it does not exist
	lock *parentLock
}

// lockForRemoval finds a link that may be deleted and holds its lock. If the link does not
// exist, link is nil and the lock is closed. For a link that is not ours it returns
// ErrForeign.
func (h *Host) lockForRemoval(ctx context.Context, name string) (g removal, err error) {
	if err := ValidName(name); err != nil {
		return g, err
	}
	g.name = name
	if g.lock, err = h.lockParent(ctx, name); err != nil {
		return g, err
	}
	g.link, err = linkByName(h.handle, name)
	if err == nil && g.link != nil && !isOurs(g.link) && !g.lock.unfinished() {
		err = ErrForeign
	}
	if err != nil || g.link == nil {
		g.lock.Close()
	}
	return g, err
}

// delete deletes the links, several of them as one link group (rtnl_group_dellink).
func (h *Host) delete(links []removal) (err error) {
	switch len(links) {
	case 0:
		return nil
	case 1:
		err = h.handle.LinkDel(links[0].link)
	default:
		// A random number of 31 bits, so that no other link is in the group.
		group := rand.Int32() | 1<<30
		for _, g := range links {
			if err := h.handle.LinkSetGroup(g.link, int(group)); err != nil && !errors.Is(err, unix.ENODEV) {
				return explainErrno(err)
			}
		}
		err = h.deleteGroup(uint32(group))
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return explainErrno(err)
}

func (h *Host) deleteGroup(group uint32) error {
	value := make([]byte, 4)
	binary.NativeEndian.PutUint32(value, group)
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, value))
	return h.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// Unfinished reports whether creating the parent of that name was interrupted before it
// was marked as ours.
func (h *Host) Unfinished(name string) bool {
	info, err := os.Stat(filepath.Join(h.lockDir, "parent-"+name+".lock"))
	return err == nil && info.Size() > 0
}

// removeBase deletes the VLAN base if it is ours, no link uses it, and needed returns false.
func (h *Host) removeBase(ctx context.Context, base string, needed func(string) bool) error {
	if _, outer, err := ParseParent(base); err != nil || outer == 0 || needed(base) {
		return err
	}
	l, err := linkByName(h.handle, base)
	if err != nil || l == nil || !isOurs(l) {
		return err
	}
	used, err := h.carriesAny(l.Attrs().Index)
	if err != nil || used {
		return err
	}
	return h.RemoveParent(ctx, base, needed)
}

func neverNeeded(string) bool { return false }

// carriesAny reports whether the link with that ifindex has a link on it: a VLAN in this
// namespace, or a macvlan in any namespace, which is in its list of MACs.
func (h *Host) carriesAny(index int) (bool, error) {
	links, err := dump(h.handle.LinkList)
	if err != nil {
		return false, err
	}
	for _, l := range links {
		if l.Attrs().ParentIndex == index && l.Attrs().NetNsID < 0 {
			return true, nil
		}
	}
	macs, err := h.ParentUnicast(index)
	return len(macs) > 0, err
}

// parentLock is held while a parent is created or deleted. Its file is not empty while a
// link is created: the kernel accepts no alias in the message that creates a link
// (rtnl_create_link). So the next holder can tell that a killed process left a link
// without our mark.
type parentLock struct{ *os.File }

// lockParent waits for the lock until ctx ends. Close releases it, and so does the end of
// the process. The file is never deleted, because two processes could then hold the lock.
func (h *Host) lockParent(ctx context.Context, name string) (*parentLock, error) {
	f, err := h.lock(ctx, "parent-"+name)
	if err != nil {
		return nil, fmt.Errorf("cannot lock it: %w", err)
	}
	return &parentLock{f}, nil
}

// Lock waits for a lock with a name, which no parent has, until ctx ends. Close of the result
// releases it, and so does the end of the process.
func (h *Host) Lock(ctx context.Context, name string) (io.Closer, error) {
	f, err := h.lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	return f, nil
}

func (h *Host) lock(ctx context.Context, name string) (*os.File, error) {
	if err := os.MkdirAll(h.lockDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(h.lockDir, name+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = retry(ctx, func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }, unix.EWOULDBLOCK,
		unix.EINTR)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())
	}
	return f, nil
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

// retry calls f until it returns an error that is not in temporary, or nil, or until ctx
// ends. It returns the last result of f.
func retry(ctx context.Context, f func() error, temporary ...error) error {
	return retryFor(ctx, math.MaxInt64, f, temporary...)
}

// retryFor is retry with a time limit. It creates a timer only if the first call of f
// fails, which is rare.
func retryFor(ctx context.Context, limit time.Duration, f func() error, temporary ...error) error {
	start := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 16*time.Millisecond) {
		err := f()
		if !isOneOf(err, temporary) || time.Since(start) > limit {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
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
