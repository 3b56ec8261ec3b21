package link

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// ErrNameTaken is returned when the container's namespace has an interface of that name.
var ErrNameTaken = errors.New("interface name is taken")

// ErrMACBusy is returned when another macvlan on the parent has the MAC until the context
// ends.
var ErrMACBusy = errors.New("MAC is in use on the parent")

// Mode is a macvlan mode.
type Mode string

const (
	ModeBridge   Mode = "bridge"
	ModePrivate  Mode = "private"
	ModeVEPA     Mode = "vepa"
	ModePassthru Mode = "passthru"
)

var kernelModes = map[Mode]netlink.MacvlanMode{
	ModeBridge:   netlink.MACVLAN_MODE_BRIDGE,
	ModePrivate:  netlink.MACVLAN_MODE_PRIVATE,
	ModeVEPA:     netlink.MACVLAN_MODE_VEPA,
	ModePassthru: netlink.MACVLAN_MODE_PASSTHRU,
}

// MacvlanSpec describes a container's interface.
type MacvlanSpec struct {
	Name   string // inside the container
	Parent Parent
	Mode   Mode
	// MAC is the container's. For ModePassthru it is zero or the parent's MAC, because
	// the kernel allows no other.
	MAC ether.MAC
	MTU int // 0: the parent's
	// IPv6 enables IPv6 on the interface, with accept_ra=0: the addresses and routes
	// are those of the network's definition, and no router advertisement adds any.
	// False disables IPv6.
	IPv6 bool
	// RA keeps the namespace's setting of accept_ra.
	RA bool
}

// Interface is an existing macvlan, ipvlan or veth.
type Interface struct {
	Name        string
	Kind        string // macvlan, ipvlan, veth
	Index       int    // ifindex in the container's namespace
	MAC         ether.MAC
	MTU         int
	ParentIndex int // ifindex in the host's namespace
	// Marked reports that the interface carries our mark. It tells the interfaces that this package
	// created from those of administrators and other programs, not from those of a container's
	// root, who can copy or remove the mark.
	Marked bool
}

func (s *MacvlanSpec) validate() error {
	if err := ValidName(s.Name); err != nil {
		return err
	}
	if _, ok := kernelModes[s.Mode]; !ok {
		return fmt.Errorf("%q is not a macvlan mode", s.Mode)
	}
	// The kernel checks this when it changes an MTU, not when it creates a link.
	if s.MTU > s.Parent.MTU {
		return fmt.Errorf("MTU %d is more than the %d of parent %q", s.MTU, s.Parent.MTU, s.Parent.Name)
	}
	if s.Mode == ModePassthru {
		if !s.MAC.IsZero() && s.MAC != s.Parent.MAC {
			return fmt.Errorf("cannot use MAC %s: in mode passthru the interface has the MAC of parent %q, %s",
				s.MAC, s.Parent.Name, s.Parent.MAC)
		}
		return nil
	}
	// The kernel reports it as busy (macvlan_addr_busy), however long we wait.
	if s.MAC == s.Parent.MAC {
		return fmt.Errorf("cannot use MAC %s: parent %q has it", s.MAC, s.Parent.Name)
	}
	return validMAC(s.MAC)
}

func validMAC(mac ether.MAC) error {
	if !mac.IsUnicast() {
		return fmt.Errorf("MAC %q is not a unicast Ethernet address", mac.String())
	}
	return nil
}

// CreateMacvlan creates the interface directly in the namespace and sets it up. It waits
// for a busy MAC until ctx ends. It returns ErrNameTaken, ErrMACBusy, or ErrNoLink if the
// parent is gone. On error it deletes what it created.
//
// Moving an interface from the host's namespace would wait for RCU with the RTNL held
// (rcu_barrier in __dev_change_net_namespace), about 15 ms. The interface is created down,
// so that a busy MAC needs only another attempt to set it up, and no deletion, which waits
// for RCU, too.
func (h *Host) CreateMacvlan(ctx context.Context, n *Netns, spec MacvlanSpec) (i Interface, err error) {
	defer func() {
		if err != nil {
			i, err = Interface{}, fmt.Errorf("create interface %s: %w", clip(spec.Name), err)
		}
	}()
	if i, err = h.makeMacvlan(ctx, n, &spec); err != nil {
		return i, err
	}
	if err = n.bringUp(ctx, &i, spec.Name, mark, func() error { return setIPv6(i.Name, spec.IPv6, spec.RA) }); err != nil {
		return i, errors.Join(err, n.DeleteInterface(i))
	}
	return i, nil
}

// makeMacvlan creates the interface, down, and possibly with a temporary name.
func (h *Host) makeMacvlan(ctx context.Context, n *Netns, spec *MacvlanSpec) (i Interface, err error) {
	if err = spec.validate(); err != nil {
		return i, err
	}
	name, err := h.addWithRetry(ctx, n, spec)
	if err != nil {
		return i, explainMacvlan(err, spec)
	}
	l, err := n.createdLink(name)
	if err != nil {
		return i, err
	}
	return interfaceOf(l), nil
}

// createdLink returns the link that was just created with a name. LinkAdd cannot return its ifindex,
// which it looks up in the host's namespace.
func (n *Netns) createdLink(name string) (netlink.Link, error) {
	l, err := linkByName(n.handle, name)
	if err == nil && l == nil {
		err = fmt.Errorf("it was deleted during its creation: %w", ErrNoLink)
	}
	return l, err
}

// passthruWait is the maximum wait for the kernel to delete a passthru macvlan of an ended
// container.
const passthruWait = time.Second

// addWithRetry is addMacvlan that waits, in mode passthru, until the parent has no other
// macvlan: the one of an ended container exists until the kernel has cleaned up its
// namespace in the background. If the other container still runs, the kernel's EINVAL
// remains.
func (h *Host) addWithRetry(ctx context.Context, n *Netns, spec *MacvlanSpec) (name string, err error) {
	if spec.Mode != ModePassthru {
		return h.addMacvlan(n, spec)
	}
	err = retryFor(ctx, passthruWait, func() error {
		name, err = h.addMacvlan(n, spec)
		return err
	}, unix.EINVAL)
	return name, err
}

// addMacvlan creates the link, down, and returns the name that it has then. The kernel
// requires a new link's name to be free in the host's namespace, too (rtnl_newlink looks
// there). If it is taken, the link gets a temporary name; only then, because renaming
// waits for RCU (dev_change_name), about 0.2 ms.
func (h *Host) addMacvlan(n *Netns, spec *MacvlanSpec) (name string, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.MTU, attrs.Namespace = spec.Name, spec.Parent.Index, spec.MTU,
		netlink.NsFd(n.Fd())
	if spec.Mode != ModePassthru {
		attrs.HardwareAddr = spec.MAC.Hardware()
	}
	err = h.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: kernelModes[spec.Mode]})
	if errors.Is(err, unix.EEXIST) {
		attrs.Name = randomName()
		err = h.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: kernelModes[spec.Mode]})
	}
	return attrs.Name, err
}

// randomName returns a link name that no other link has: 60 random bits.
func randomName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])[:maxName]
}

func interfaceOf(l netlink.Link) Interface {
	a := l.Attrs()
	return Interface{Name: a.Name, Kind: l.Type(), Index: a.Index, MAC: ether.MACOf(a.HardwareAddr), MTU: a.MTU,
		ParentIndex: a.ParentIndex, Marked: a.Alias == mark}
}

func explainMacvlan(err error, spec *MacvlanSpec) error {
	parent := spec.Parent.Name
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("parent %q is gone: %w", parent, ErrNoLink)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("parent %q is in use by another kind of link (a bridge, a bond, ipvlan)", parent)
	case errors.Is(err, unix.EINVAL) && spec.Mode == ModePassthru:
		return fmt.Errorf("parent %q carries another macvlan: mode passthru needs the parent exclusively", parent)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("parent %q does not accept it: %w (does it carry a macvlan in mode passthru?)", parent, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("the kernel has no macvlan: run \"modprobe macvlan\"")
	}
	return explainErrno(err)
}

// bringUp renames a new interface to name, if needed, sets its alias unless that is "", and sets it
// up, in one message: do_setlink renames before it changes flags. The kernel ignores an alias in the
// message that creates a link. It calls prepare first, in the namespace.
func (n *Netns) bringUp(ctx context.Context, i *Interface, name, alias string, prepare func() error) error {
	// Before the interface is up. Otherwise the kernel would add IPv6 addresses and
	// solicit routers before the settings apply.
	if err := n.Do(prepare); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.Name, attrs.Alias, attrs.Flags = i.Index, name, alias, net.FlagUp
	err := n.setUp(ctx, attrs)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: the container has a %q already", ErrNameTaken, name)
	}
	if err != nil {
		return err
	}
	i.Name, i.Marked = name, alias == mark
	return nil
}

// setUp applies attrs and waits for a busy MAC until ctx ends: the MAC of an ended
// container is busy until the kernel has cleaned up its namespace in the background.
func (n *Netns) setUp(ctx context.Context, attrs netlink.LinkAttrs) error {
	change := &netlink.Device{LinkAttrs: attrs}
	err := retry(ctx, func() error { return n.handle.LinkModify(change) }, unix.EADDRINUSE, unix.EBUSY)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("cannot set it up: %w", ErrMACBusy)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot set it up: %w", explainErrno(err))
	}
	return err
}

func setIPv6(name string, on, ra bool) error {
	conf := "ipv6/conf/" + name
	if !on {
		return writeSysctl(conf+"/disable_ipv6", "1")
	}
	if ra {
		return writeSysctl(conf+"/disable_ipv6", "0")
	}
	return errors.Join(writeSysctl(conf+"/accept_ra", "0"), writeSysctl(conf+"/disable_ipv6", "0"))
}

// SetMAC gives the interface another MAC. It sets the interface down and up again, so that
// the IPv6 link-local address becomes that of the new MAC. That removes all IPv6 addresses
// and routes, and waits for RCU. It is for the rare case that a claimant uses the address
// that the first MAC was chosen with. It returns ErrNoLink, ErrForeign or ErrMACBusy.
func (n *Netns) SetMAC(ctx context.Context, i Interface, mac ether.MAC) (Interface, error) {
	err := n.setMAC(ctx, i, mac)
	if err != nil {
		return i, fmt.Errorf("set MAC of interface %q to %s: %w", i.Name, mac, err)
	}
	i.MAC = mac
	return i, nil
}

// SetMTU sets the MTU of the interface with that ifindex, in bytes.
func (n *Netns) SetMTU(index, mtu int) error {
	if err := n.handle.LinkSetMTU(onIndex(index), mtu); err != nil {
		return fmt.Errorf("set MTU %d: %w", mtu, explainErrno(err))
	}
	return nil
}

func (n *Netns) setMAC(ctx context.Context, i Interface, mac ether.MAC) error {
	if err := validMAC(mac); err != nil {
		return err
	}
	l, err := n.current(i)
	if err != nil {
		return err
	}
	if l == nil {
		return ErrNoLink
	}
	if m, ok := l.(*netlink.Macvlan); !ok || m.Mode == netlink.MACVLAN_MODE_PASSTHRU {
		return errors.New("that would change the parent's MAC")
	}
	if err := n.handle.LinkSetDown(l); err != nil {
		return explainErrno(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.Name, attrs.HardwareAddr, attrs.Flags = i.Index, i.Name, mac.Hardware(), net.FlagUp
	return n.setUp(ctx, attrs)
}

// current returns the link with i's ifindex if it is a macvlan or ipvlan with i's parent and
// MAC. It returns nil if no link has the ifindex, and ErrForeign if another link has it.
func (n *Netns) current(i Interface) (netlink.Link, error) {
	l, err := linkByIndex(n.handle, i.Index)
	if err != nil || l == nil {
		return nil, err
	}
	kind, a := l.Type(), l.Attrs()
	if kind != "macvlan" && kind != "ipvlan" || a.ParentIndex != i.ParentIndex || ether.MACOf(a.HardwareAddr) != i.MAC {
		return nil, fmt.Errorf("interface %d, %q, %s: %w", i.Index, a.Name, a.HardwareAddr, ErrForeign)
	}
	return l, nil
}

// Links lists the names of all interfaces in the namespace.
func (n *Netns) Links() ([]string, error) {
	links, err := dumpIn(n.Tries, n.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Attrs().Name
	}
	return names, nil
}

// FindMacvlan returns the macvlan on the host's parent with the ifindex parentIndex: the one with
// the ifindex index, else the one with that MAC; nil if there is neither. A container can change the
// MAC, and a killed attach may have created the macvlan before it could record the ifindex (0).
func (n *Netns) FindMacvlan(parentIndex, index int, mac ether.MAC) (found *Interface, err error) {
	all, err := n.OnHostParents()
	for _, i := range all {
		if i.Kind != "macvlan" || i.ParentIndex != parentIndex {
			continue
		}
		if i.Index == index {
			return &i, nil
		}
		if i.MAC == mac {
			found = &i
		}
	}
	return found, err
}

// OnHostParents lists the macvlans and ipvlans in the namespace with a parent on the host. It
// skips those with a parent in another namespace: their ParentIndex could equal the ifindex
// of a link of the host.
func (n *Netns) OnHostParents() (found []Interface, err error) {
	links, err := dumpIn(n.Tries, n.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if (l.Type() != "macvlan" && l.Type() != "ipvlan") || l.Attrs().NetNsID < 0 {
			continue
		}
		// The namespace has an id for the host's (rtnetlink(7), IFLA_LINK_NETNSID)
		// once one of its links has a parent there.
		host, err := n.handle.GetNetNsIdByFd(n.host)
		if err != nil {
			return nil, fmt.Errorf("find the id of the host's namespace: %w", err)
		}
		if l.Attrs().NetNsID == host {
			found = append(found, interfaceOf(l))
		}
	}
	return found, nil
}

// DeleteInterface deletes the interface if it is still a macvlan or ipvlan with i's ifindex,
// MAC and parent. It returns nil if the interface does not exist, and ErrForeign if
// another one has its ifindex.
func (n *Netns) DeleteInterface(i Interface) error {
	l, err := n.current(i)
	if err == nil && l != nil {
		err = n.handle.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %q: %w", i.Name, explainErrno(err))
	}
	return nil
}
