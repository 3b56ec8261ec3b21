package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// PinNetns makes a network namespace that lives for as long as it is mounted at
// path. One that is there already stays.
func PinNetns(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make network namespace %q: %w", path, err)
		}
	}()
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
		defer unix.Close(fd)
		if _, err := identify(fd); err == nil {
			return nil
		}
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	unix.Close(fd)
	done := make(chan error)
	go func() {
		// Never unlocked: the thread is in the new namespace, and ends.
		runtime.LockOSThread()
		done <- pinNew(path)
	}()
	return <-done
}

func pinNew(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return explainErrno(err)
	}
	// What is in it only passes frames on, and has nothing to say itself.
	if err := writeSysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

// Names of the links of a guarded attachment, before its tag.
const (
	outsidePrefix = "m"
	insidePrefix  = "v"
)

// GuardedSpec is an interface whose frames are guarded. A namespace that the
// container's owner cannot get into has a macvlan on the parent and the near
// end of a veth pair, whose far end the container has.
type GuardedSpec struct {
	MacvlanSpec
	// Tag tells its links from others': up to 14 letters and digits.
	Tag string
	// Groups are the multicast MACs that the macvlan lets in.
	Groups []net.HardwareAddr
	// Admit puts a guard between the two links, on a thread in their namespace.
	// Neither is up yet.
	Admit func(outside, inside int, mtu int) error
}

// CreateGuarded makes the links, and sets them up once they are guarded: nothing
// passes before, and a qdisc on a link that is up waits for RCU (dev_deactivate).
// The interface that it gives is the container's. On error nothing is left behind.
func (h *Host) CreateGuarded(ctx context.Context, guards, container *Netns, spec GuardedSpec) (i Interface, err error) {
	var outside Interface
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create interface %s: %w", clip(spec.Name), err), guards.DeleteGuarded(spec.Tag))
			if i = (Interface{}); outside.Index != 0 { // it may have a passing name yet
				err = errors.Join(err, guards.DeleteMacvlan(outside))
			}
		}
	}()
	if err = ValidName(spec.Name); err != nil {
		return i, err
	}
	outer := spec.MacvlanSpec
	outer.Name, outer.IPv6 = outsidePrefix+spec.Tag, false
	if outside, err = h.makeMacvlan(ctx, guards, &outer); err != nil {
		return i, err
	}
	inside, err := guards.addPair(container, spec, outside.MTU)
	if err != nil {
		return i, err
	}
	l, err := linkByName(container.handle, spec.Name)
	if err == nil && l == nil {
		err = fmt.Errorf("it went away while it was made: %w", ErrNoLink)
	}
	if err != nil {
		return i, err
	}
	i = interfaceOf(l)
	i.ParentIndex = 0 // that of its peer's namespace says nothing
	if err = guards.Do(func() error {
		return errors.Join(spec.Admit(outside.Index, inside, i.MTU), joinGroups(outside.Name, spec.Groups))
	}); err != nil {
		return i, err
	}
	if err = guards.bringUp(ctx, &outside, outer.Name, func() error { return setIPv6(outside.Name, false, false) }); err != nil {
		return i, err
	}
	// The last end to come up can send at once. The other, which has a carrier from
	// then on, only when the kernel's watch of links has come to it, or somebody
	// asks (rtnl_getlink, from Linux 6.8): until then it drops what it is given. At
	// the container's end the sender is told; at ours answers would be lost.
	if err = container.bringUpGuarded(l, spec.IPv6); err != nil {
		return i, err
	}
	if err = guards.handle.LinkSetUp(onIndex(inside)); err != nil {
		return i, fmt.Errorf("set it up: %w", explainErrno(err))
	}
	_, err = linkByIndex(container.handle, i.Index)
	return i, err
}

// addPair makes the veth pair, down, and gives the near end's index.
func (n *Netns) addPair(container *Netns, spec GuardedSpec, mtu int) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = insidePrefix+spec.Tag, mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: spec.Name, PeerHardwareAddr: spec.MAC, PeerNamespace: netlink.NsFd(container.Fd())}
	err := n.handle.LinkAdd(pair)
	switch {
	case errors.Is(err, unix.EEXIST):
		return 0, fmt.Errorf("%w: the container has a %q already", ErrNameTaken, spec.Name)
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, errors.New("the kernel has no veth (modprobe veth)")
	case err != nil:
		return 0, explainErrno(err)
	}
	return pair.Index, nil
}

// bringUpGuarded sets the container's end up. Its link-local address is to be
// that of the MAC, which the guard knows, and not a random one (RFC 7217).
func (n *Netns) bringUpGuarded(l netlink.Link, ipv6 bool) error {
	name := l.Attrs().Name
	if err := n.Do(func() error {
		return errors.Join(writeSysctl("ipv6/conf/"+name+"/addr_gen_mode", "0"), setIPv6(name, ipv6, false))
	}); err != nil {
		return err
	}
	if err := n.handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("set it up: %w", explainErrno(err))
	}
	return nil
}

// DeleteGuarded deletes the links of a guarded attachment, and with them the
// container's. Missing ones are no error.
func (n *Netns) DeleteGuarded(tag string) (err error) {
	for _, name := range []string{insidePrefix + tag, outsidePrefix + tag} {
		l, lerr := linkByName(n.handle, name)
		if lerr == nil && l != nil {
			lerr = n.handle.LinkDel(l)
		}
		if lerr != nil && !errors.Is(lerr, unix.ENODEV) {
			err = errors.Join(err, fmt.Errorf("delete link %q: %w", name, explainErrno(lerr)))
		}
	}
	return err
}

// GuardedTags lists the tags of the guarded attachments that have a link in the
// namespace.
func (n *Netns) GuardedTags() ([]string, error) {
	names, err := n.Links()
	var tags []string
	for _, name := range names {
		if tag, ok := strings.CutPrefix(name, outsidePrefix); ok {
			tags = append(tags, tag)
		}
	}
	return tags, err
}

// Veths lists the namespace's ends of veth pairs.
func (n *Netns) Veths() (found []Interface, err error) {
	links, err := dumpIn(n.Tries, n.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if l.Type() == "veth" {
			found = append(found, interfaceOf(l))
		}
	}
	return found, nil
}

// joinGroups makes a link let multicast MACs in, until it is deleted.
func joinGroups(name string, groups []net.HardwareAddr) error {
	// Any socket will do (net/socket.c, sock_do_ioctl).
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, g := range groups {
		// struct ifreq with ifr_hwaddr (netdevice(7)); its family must be
		// AF_UNSPEC (net/core/dev_ioctl.c).
		var request struct {
			name   [unix.IFNAMSIZ]byte
			family uint16
			mac    [22]byte
		}
		copy(request.name[:unix.IFNAMSIZ-1], name)
		copy(request.mac[:], g)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDMULTI, uintptr(unsafe.Pointer(&request)))
		if errno != 0 && errno != unix.EEXIST {
			return fmt.Errorf("let group %s in: %w", g, errno)
		}
	}
	return nil
}
