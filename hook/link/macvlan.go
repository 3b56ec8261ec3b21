package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNameTaken is returned by CreateMacvlan when the namespace has an interface
// of that name.
var ErrNameTaken = errors.New("interface name is taken")

// ErrMACBusy is returned when another macvlan on the parent had the MAC
// throughout the time that the context gave.
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

// MacvlanSpec is the interface that a container shall have.
type MacvlanSpec struct {
	Name   string // inside the container
	Parent Parent
	Mode   Mode
	// MAC is the container's; nil or the parent's own for ModePassthru, which
	// knows no other.
	MAC net.HardwareAddr
	MTU int // 0 takes the parent's
	// IPv6 false turns IPv6 off on the interface. True turns it on with
	// accept_ra=0: the network's addresses and routes are the ones written in
	// its definition, and no neighbour that sends advertisements adds to them.
	IPv6 bool
	// RA leaves router advertisements to be taken as the namespace has it.
	RA bool
}

// Interface is a macvlan as the kernel has it.
type Interface struct {
	Name        string
	Kind        string // macvlan, ipvlan, veth
	Index       int    // in the container's namespace
	MAC         net.HardwareAddr
	MTU         int
	ParentIndex int // in the host's namespace
}

func (s *MacvlanSpec) validate() error {
	if err := ValidName(s.Name); err != nil {
		return err
	}
	if _, ok := kernelModes[s.Mode]; !ok {
		return fmt.Errorf("%q is not a macvlan mode", s.Mode)
	}
	// The kernel checks this when an MTU is changed, not when one is first given.
	if s.MTU > s.Parent.MTU {
		return fmt.Errorf("MTU %d is more than the %d of parent %q", s.MTU, s.Parent.MTU, s.Parent.Name)
	}
	if s.Mode == ModePassthru {
		if s.MAC != nil && !bytes.Equal(s.MAC, s.Parent.MAC) {
			return fmt.Errorf("MAC %s cannot be had: in mode passthru the interface has the MAC of parent %q, %s", s.MAC, s.Parent.Name, s.Parent.MAC)
		}
		return nil
	}
	// The kernel calls it busy (macvlan_addr_busy), and would as long as we wait.
	if bytes.Equal(s.MAC, s.Parent.MAC) {
		return fmt.Errorf("MAC %s is that of parent %q", s.MAC, s.Parent.Name)
	}
	return validMAC(s.MAC)
}

func validMAC(mac net.HardwareAddr) error {
	if len(mac) != 6 || mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)) {
		return fmt.Errorf("MAC %q is not one of a single Ethernet interface", mac.String())
	}
	return nil
}

// CreateMacvlan makes the interface directly in the namespace and sets it up.
// On error nothing is left behind.
//
// Made in the host's namespace and moved, it would wait for RCU with the RTNL
// held (rcu_barrier in __dev_change_net_namespace), some 15 ms. It is made down,
// so that a MAC that is busy costs another try to set it up, and not a deletion,
// which waits for RCU, too.
func (h *Host) CreateMacvlan(ctx context.Context, n *Netns, spec MacvlanSpec) (i Interface, err error) {
	defer func() {
		if err != nil {
			i, err = Interface{}, fmt.Errorf("create interface %s: %w", clip(spec.Name), err)
		}
	}()
	if i, err = h.makeMacvlan(ctx, n, &spec); err != nil {
		return i, err
	}
	if err = n.bringUp(ctx, &i, spec.Name, func() error { return setIPv6(i.Name, spec.IPv6, spec.RA) }); err != nil {
		return i, errors.Join(err, n.DeleteMacvlan(i))
	}
	return i, nil
}

// makeMacvlan makes the interface, down, and perhaps with a passing name.
func (h *Host) makeMacvlan(ctx context.Context, n *Netns, spec *MacvlanSpec) (i Interface, err error) {
	if err = spec.validate(); err != nil {
		return i, err
	}
	name, err := h.addWithRetry(ctx, n, spec)
	if err != nil {
		return i, explainMacvlan(err, spec)
	}
	// LinkAdd looks the index up in the host's namespace. It is not there.
	l, err := linkByName(n.handle, name)
	if err == nil && l == nil {
		err = fmt.Errorf("it went away while it was made: %w", ErrNoLink)
	}
	if err != nil {
		return i, err
	}
	return interfaceOf(l), nil
}

// passthruWait is how long a passthru macvlan may take to go whose namespace has ended.
const passthruWait = time.Second

// addWithRetry waits for the parent where it must be free of others: that of a
// container that has just ended is there until its namespace is cleaned up in the
// background. One that lives stays, and the kernel's refusal with it.
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

// addMacvlan makes the link, down, and returns the name that it has now. The
// kernel wants a new link's name to be free in the host's namespace as well
// (rtnl_newlink looks there): where it is not, the link gets a passing name.
// Not always, for renaming waits for RCU (dev_change_name), some 0.2 ms.
func (h *Host) addMacvlan(n *Netns, spec *MacvlanSpec) (name string, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.MTU, attrs.Namespace = spec.Name, spec.Parent.Index, spec.MTU, netlink.NsFd(n.Fd())
	if spec.Mode != ModePassthru {
		attrs.HardwareAddr = spec.MAC
	}
	err = h.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: kernelModes[spec.Mode]})
	if errors.Is(err, unix.EEXIST) {
		attrs.Name = temporaryName()
		err = h.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: kernelModes[spec.Mode]})
	}
	return attrs.Name, err
}

// temporaryName is a name that nobody has: 60 random bits.
func temporaryName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])[:maxName]
}

func interfaceOf(l netlink.Link) Interface {
	a := l.Attrs()
	return Interface{Name: a.Name, Kind: l.Type(), Index: a.Index, MAC: a.HardwareAddr, MTU: a.MTU, ParentIndex: a.ParentIndex}
}

func explainMacvlan(err error, spec *MacvlanSpec) error {
	parent := spec.Parent.Name
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("parent %q is gone: %w", parent, ErrNoLink)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("parent %q is in use by another kind of link (a bridge, a bond, ipvlan)", parent)
	case errors.Is(err, unix.EINVAL) && spec.Mode == ModePassthru:
		return fmt.Errorf("parent %q carries another macvlan: mode passthru wants it alone", parent)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("parent %q does not take it: %w (does it carry a macvlan in mode passthru?)", parent, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("the kernel has no macvlan (modprobe macvlan)")
	}
	return explainErrno(err)
}

// bringUp gives a new interface its name, if it has another, and sets it up, in
// one message: do_setlink renames before it changes flags.
func (n *Netns) bringUp(ctx context.Context, i *Interface, name string, prepare func() error) error {
	// Before it is up, or the kernel has made itself addresses and asked for
	// routers by the time that it is told not to.
	if err := n.Do(prepare); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.Name, attrs.Flags = i.Index, name, net.FlagUp
	err := n.setUp(ctx, attrs)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: the container has a %q already", ErrNameTaken, name)
	}
	if err != nil {
		return err
	}
	i.Name = name
	return nil
}

// setUp makes the change and waits for a busy MAC: that of a container that has
// just ended is taken until its namespace is cleaned up in the background.
func (n *Netns) setUp(ctx context.Context, attrs netlink.LinkAttrs) error {
	change := &netlink.Device{LinkAttrs: attrs}
	err := retry(ctx, func() error { return n.handle.LinkModify(change) }, unix.EADDRINUSE, unix.EBUSY)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("set it up: %w", ErrMACBusy)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("set it up: %w", explainErrno(err))
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

// SetMAC gives the interface another MAC. It goes down and up again, so that
// its IPv6 link-local address becomes that of the new MAC; that takes all IPv6
// addresses and routes off, and waits for RCU. It is for the rare case that a
// rival holds the address that the first MAC came with.
func (n *Netns) SetMAC(ctx context.Context, i Interface, mac net.HardwareAddr) (Interface, error) {
	err := n.setMAC(ctx, i, mac)
	if err != nil {
		return i, fmt.Errorf("set MAC of interface %q to %s: %w", i.Name, mac, err)
	}
	i.MAC = mac
	return i, nil
}

func (n *Netns) setMAC(ctx context.Context, i Interface, mac net.HardwareAddr) error {
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
		return errors.New("that would change the parent's")
	}
	if err := n.handle.LinkSetDown(l); err != nil {
		return explainErrno(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index, attrs.Name, attrs.HardwareAddr, attrs.Flags = i.Index, i.Name, mac, net.FlagUp
	return n.setUp(ctx, attrs)
}

// current is the interface if it is there and still what it was, nil if it is gone.
func (n *Netns) current(i Interface) (netlink.Link, error) {
	l, err := linkByIndex(n.handle, i.Index)
	if err != nil || l == nil {
		return nil, err
	}
	kind, a := l.Type(), l.Attrs()
	if kind != "macvlan" && kind != "ipvlan" || a.ParentIndex != i.ParentIndex || !bytes.Equal(a.HardwareAddr, i.MAC) {
		return nil, fmt.Errorf("interface %d, %q, %s: %w", i.Index, a.Name, a.HardwareAddr, ErrForeign)
	}
	return l, nil
}

// Links lists the names of the namespace's interfaces.
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

// FindMacvlan looks for a macvlan of that MAC on that parent: what an attach
// that was killed may have made before it could note the index. It is nil where
// there is none.
func (n *Netns) FindMacvlan(parentIndex int, mac net.HardwareAddr) (*Interface, error) {
	all, err := n.Standing()
	for _, i := range all {
		if i.Kind == "macvlan" && i.ParentIndex == parentIndex && bytes.Equal(i.MAC, mac) {
			return &i, nil
		}
	}
	return nil, err
}

// Standing lists the namespace's macvlans and ipvlans that stand on links of the
// host's. Indexes are each namespace's own: one that stands on a link elsewhere is
// none.
func (n *Netns) Standing() (found []Interface, err error) {
	links, err := dumpIn(n.Tries, n.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if (l.Type() != "macvlan" && l.Type() != "ipvlan") || l.Attrs().NetNsID < 0 {
			continue
		}
		// The namespace has an id of the host's (rtnetlink(7), IFLA_LINK_NETNSID) as
		// soon as one of its links stands on one there.
		host, err := n.handle.GetNetNsIdByFd(n.host)
		if err != nil {
			return nil, fmt.Errorf("find the host's namespace from inside: %w", err)
		}
		if l.Attrs().NetNsID == host {
			found = append(found, interfaceOf(l))
		}
	}
	return found, nil
}

// DeleteMacvlan deletes the interface if it is still a macvlan, or an ipvlan, of
// that index, MAC and parent. A missing one is no error; another gives ErrForeign.
func (n *Netns) DeleteMacvlan(i Interface) error {
	l, err := n.current(i)
	if err == nil && l != nil {
		err = n.handle.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %q: %w", i.Name, explainErrno(err))
	}
	return nil
}
