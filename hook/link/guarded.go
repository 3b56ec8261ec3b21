package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/netns"
)

// PinNetns creates the network namespace of guarded attachments and mounts it at path. If
// path is a network namespace already, PinNetns does nothing.
func PinNetns(path string) error {
	return netns.Pin(path, func() error {
		// The links in it only forward frames; they send none of their own.
		return writeSysctl("ipv6/conf/default/disable_ipv6", "1")
	})
}

// Prefixes of the names of a guarded attachment's links; the tag follows. The outside
// link is the macvlan, the inside link is the near end of the veth pair.
const (
	outsidePrefix = "m"
	insidePrefix  = "v"
)

// GuardedSpec describes an interface with guarded frames. The macvlan on the parent
// and the near end of a veth pair are in a namespace that the container's owner cannot
// enter; the far end of the pair is in the container.
type GuardedSpec struct {
	MacvlanSpec
	// Tag is part of its links' names and makes them unique: up to 14 letters and digits.
	Tag string
	// Groups are the multicast MACs that the macvlan receives.
	Groups []ether.MAC
	// Admit attaches a guard between the two links, given by ifindex. It is called on a
	// thread in their namespace, before they are up.
	Admit func(outside, inside int, mtu int) error
}

// CreateGuarded creates the links, attaches the guard and then sets the links up. So no
// frame passes unguarded, and adding the qdisc does not wait for RCU, as it does on a link
// that is up (dev_deactivate). It returns the container's interface. On error it deletes
// everything that it created.
func (h *Host) CreateGuarded(ctx context.Context, guards, container *Netns, spec GuardedSpec) (i Interface, err error) {
	var outside Interface
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create interface %s: %w", clip(spec.Name), err), guards.DeleteGuarded(spec.Tag))
			i = Interface{}
			if outside.Index != 0 { // it may still have its temporary name
				err = errors.Join(err, guards.DeleteInterface(outside))
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
	l, err := container.createdLink(spec.Name)
	if err != nil {
		return i, err
	}
	i = interfaceOf(l)
	i.ParentIndex = 0 // an ifindex in its peer's namespace has no meaning here
	if err = guards.Do(func() error {
		return errors.Join(spec.Admit(outside.Index, inside, i.MTU),
			changeGroups(unix.SIOCADDMULTI, outside.Name, spec.Groups))
	}); err != nil {
		return i, err
	}
	if err = guards.bringUp(ctx, &outside, outer.Name, "",
		func() error { return setIPv6(outside.Name, false, false) }); err != nil {
		return i, err
	}
	// The end that comes up last can send at once. The other end gets its carrier then,
	// and drops frames until the kernel's linkwatch has run or a process reads the link
	// (rtnl_getlink, from Linux 6.8). So the container's end comes up first: there the
	// sender gets an error, while at our end replies would be lost.
	if err = container.bringUpGuarded(l, spec.IPv6); err != nil {
		return i, err
	}
	if err = guards.handle.LinkSetUp(onIndex(inside)); err != nil {
		return i, fmt.Errorf("cannot set it up: %w", explainErrno(err))
	}
	_, err = linkByIndex(container.handle, i.Index)
	return i, err
}

// addPair creates the veth pair, down, and returns the ifindex of the near end.
func (n *Netns) addPair(container *Netns, spec GuardedSpec, mtu int) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = insidePrefix+spec.Tag, mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: spec.Name, PeerHardwareAddr: spec.MAC.Hardware(),
		PeerNamespace: netlink.NsFd(container.Fd())}
	err := n.handle.LinkAdd(pair)
	switch {
	case errors.Is(err, unix.EEXIST):
		return 0, fmt.Errorf("%w: the container has a %q already", ErrNameTaken, spec.Name)
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, errors.New("the kernel has no veth: run \"modprobe veth\"")
	case err != nil:
		return 0, explainErrno(err)
	}
	return pair.Index, nil
}

// bringUpGuarded sets the container's end up. Its link-local address must be the one
// derived from the MAC, which the guard knows, and not a random one (RFC 7217).
func (n *Netns) bringUpGuarded(l netlink.Link, ipv6 bool) error {
	name := l.Attrs().Name
	if err := n.Do(func() error {
		return errors.Join(writeSysctl("ipv6/conf/"+name+"/addr_gen_mode", "0"), setIPv6(name, ipv6, false))
	}); err != nil {
		return err
	}
	if err := n.handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("cannot set it up: %w", explainErrno(err))
	}
	return nil
}

// DeleteGuarded deletes the links of a guarded attachment; the kernel deletes the
// container's end with them. It returns nil if they do not exist.
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

// GuardedLinks returns the ifindexes of the links of a guarded attachment, 0 for one that does not exist.
func (n *Netns) GuardedLinks(tag string) (outside, inside int, err error) {
	index := func(name string) int {
		l, lerr := linkByName(n.handle, name)
		if err = errors.Join(err, lerr); lerr != nil || l == nil {
			return 0
		}
		return l.Attrs().Index
	}
	outside, inside = index(outsidePrefix+tag), index(insidePrefix+tag)
	return outside, inside, err
}

// GuardedTags lists the tags of the guarded attachments with a link in the namespace.
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

// Veths lists the ends of veth pairs in the namespace.
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

// ChangeGroups makes the macvlan of a guarded attachment receive the multicast MACs now instead of before. It
// must be called on a thread in the macvlan's namespace.
func ChangeGroups(tag string, before, now []ether.MAC) error {
	in := func(list []ether.MAC) func(ether.MAC) bool {
		return func(g ether.MAC) bool { return slices.Contains(list, g) }
	}
	name := outsidePrefix + tag
	return errors.Join(
		changeGroups(unix.SIOCADDMULTI, name, slices.DeleteFunc(slices.Clone(now), in(before))),
		changeGroups(unix.SIOCDELMULTI, name, slices.DeleteFunc(slices.Clone(before), in(now))))
}

// changeGroups makes a link receive multicast MACs, by SIOCADDMULTI, until it is deleted, or no longer, by
// SIOCDELMULTI.
func changeGroups(how uintptr, name string, groups []ether.MAC) error {
	// The ioctl works on a socket of any family (net/socket.c, sock_do_ioctl).
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
		copy(request.mac[:], g[:])
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), how, uintptr(unsafe.Pointer(&request)))
		if errno != 0 && errno != unix.EEXIST && errno != unix.ENOENT {
			return fmt.Errorf("receive multicast group %s: %w", g, errno)
		}
	}
	return nil
}
