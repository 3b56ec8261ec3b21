package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// ErrNoLink is returned when a parent, or the link below it, does not exist.
var ErrNoLink = errors.New("no such link")

// mark is the alias (IFLA_IFALIAS) of the links that this package created. Unlike a database
// record it cannot be lost while the link exists, and `ip link` shows it.
const mark = "lanyard"

// Parent is a host link that can carry a network.
type Parent struct {
	Name  string
	Index int // ifindex
	MAC   ether.MAC
	MTU   int
	Up    bool // administratively
	// Ours reports that the link carries our mark: a VLAN or dummy that we created.
	Ours bool
	// GVRP and MVRP report that the kernel announces the VLAN to the switch.
	GVRP, MVRP bool
	// Trunk is the first link below that is not a VLAN; the parent itself if that is not
	// a VLAN.
	Trunk      string
	TrunkIndex int // ifindex
	// Chain are the ifindexes from the parent down to the trunk.
	Chain []int
	// Tags are those that the parent's frames carry on the trunk, the outer one first.
	Tags ether.Tags
}

// ParentSpec is a parent as a network's definition describes it.
type ParentSpec struct {
	// Name is the name of a link, or BASE.VID for a VLAN on one, or BASE.VID.VID for a
	// VLAN in a VLAN (QinQ).
	Name string
	// Outer is the protocol of the outermost tag of such a VLAN; 0: 802.1Q. The inner
	// tags are always 802.1Q.
	Outer uint16
	// Dummy selects a dummy link: containers on it reach one another and no other station.
	Dummy bool
	// GVRP and MVRP have the kernel announce a VLAN that is created to the switch.
	GVRP, MVRP bool
}

// vlan splits a spec of a VLAN into the spec of the link below it and its tag. tag.VID is 0
// if the name is not that of a VLAN. The base may be a VLAN itself.
func (s ParentSpec) vlan() (base ParentSpec, tag ether.Tag, err error) {
	name, vid, err := ParseParent(s.Name)
	if err != nil {
		return base, tag, fmt.Errorf("parent %w", err)
	}
	if s.Dummy && vid != 0 {
		return base, tag, fmt.Errorf("parent %q: a dummy cannot have the name of a VLAN", s.Name)
	}
	if vid == 0 {
		return base, tag, nil
	}
	base, tag = ParentSpec{Name: name, Outer: s.Outer}, ether.Tag{TPID: unix.ETH_P_8021Q, VID: vid}
	if _, below, err := ParseParent(name); s.Outer != 0 && err == nil && below == 0 {
		tag.TPID = s.Outer // this is the outermost tag
	}
	return base, tag, nil
}

// Resolve finds an existing parent and its trunk, and changes nothing. It returns ErrNoLink
// if the parent does not exist, and an error with the reason if it cannot carry macvlans or ipvlans.
func (h *Host) Resolve(want ParentSpec) (Parent, error) {
	base, tag, err := want.vlan()
	if err != nil {
		return Parent{}, err
	}
	p, _, err := h.find(want, base.Name, tag)
	if err != nil {
		return Parent{}, fmt.Errorf("parent %q: %w", want.Name, err)
	}
	return p, nil
}

// FindRenamed finds the link that we created for a parent, although that link or the one below it
// has another name now. It returns nil if there is no such link.
func (h *Host) FindRenamed(want ParentSpec) (*Parent, error) {
	base, tag, err := want.vlan()
	if err != nil {
		return nil, err
	}
	links, err := dump(h.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", explainErrno(err))
	}
	for _, l := range links {
		if !isOurs(l) {
			continue
		}
		chain, err := h.below(l)
		if err != nil {
			return nil, err
		}
		if hasName(l, want.Name) || tag.VID != 0 && isVLAN(chain, base.Name, tag) {
			p := parentOf(chain)
			return &p, nil
		}
	}
	return nil, nil
}

// ParentAt returns the link with that ifindex, whatever its name is now, or ErrNoLink.
func (h *Host) ParentAt(index int) (Parent, error) {
	l, err := linkByIndex(h.handle, index)
	if err == nil && l == nil {
		err = ErrNoLink
	}
	var chain []netlink.Link
	if err == nil {
		chain, err = h.below(l)
	}
	if err != nil {
		return Parent{}, fmt.Errorf("read link %d: %w", index, explainErrno(err))
	}
	return parentOf(chain), nil
}

// ParentNamed returns the link with that name, also if it cannot carry macvlans, or ErrNoLink.
func (h *Host) ParentNamed(name string) (Parent, error) {
	l, err := linkByName(h.handle, name)
	if err == nil && l == nil {
		err = ErrNoLink
	}
	if err != nil {
		return Parent{}, fmt.Errorf("link %q: %w", name, explainErrno(err))
	}
	return h.ParentAt(l.Attrs().Index)
}

// IsBridge reports whether the link with that ifindex is a bridge.
func (h *Host) IsBridge(index int) (bool, error) {
	l, err := linkByIndex(h.handle, index)
	if err != nil {
		return false, fmt.Errorf("read link %d: %w", index, explainErrno(err))
	}
	return l != nil && l.Type() == "bridge", nil
}

// Created lists the links that carry our mark.
func (h *Host) Created() (found []Parent, err error) {
	links, err := dump(h.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", explainErrno(err))
	}
	for _, l := range links {
		if isOurs(l) {
			found = append(found, Parent{Name: l.Attrs().Name, Index: l.Attrs().Index})
		}
	}
	return found, nil
}

// find looks a parent up by name and, if the tag has a VID, checks that it is that VLAN on
// base.
func (h *Host) find(want ParentSpec, base string, tag ether.Tag) (Parent, netlink.Link, error) {
	l, err := linkByName(h.handle, want.Name)
	if err != nil {
		return Parent{}, nil, err
	}
	if l == nil {
		return Parent{}, nil, ErrNoLink
	}
	chain, err := h.below(l)
	if err != nil {
		return Parent{}, nil, err
	}
	if tag.VID != 0 && !isVLAN(chain, base, tag) {
		return Parent{}, nil, fmt.Errorf("is %s, not %s on %q: rename that link or choose another parent", describe(chain),
			tag, base)
	}
	if want.Dummy && l.Type() != "dummy" {
		return Parent{}, nil, fmt.Errorf("is %s, not a dummy: rename that link", describe(chain))
	}
	if p := parentOf(chain); tag.VID != 0 && want.Outer != 0 && p.Tags[0].TPID != want.Outer {
		return Parent{}, nil, fmt.Errorf("is %s on %q, not by protocol %#x: rename that link or choose another parent",
			p.Tags[0], p.Trunk, want.Outer)
	}
	if err := h.canCarry(l); err != nil {
		return Parent{}, nil, err
	}
	return parentOf(chain), l, nil
}

// below returns the chain of VLAN links from l down to its trunk, both included.
func (h *Host) below(l netlink.Link) ([]netlink.Link, error) {
	chain := []netlink.Link{l}
	// The kernel limits the chain (MAX_NEST_DEV). This limit is for a chain that changes
	// during the loop.
	for range 8 {
		a := l.Attrs()
		if l.Type() != "vlan" {
			return chain, nil
		}
		if a.NetNsID >= 0 {
			return nil, fmt.Errorf("%q is a VLAN on a link in another network namespace: "+
				"name a parent with its trunk in this one", a.Name)
		}
		next, err := linkByIndex(h.handle, a.ParentIndex)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, fmt.Errorf("the link below %q: %w", a.Name, ErrNoLink)
		}
		l, chain = next, append(chain, next)
	}
	return nil, fmt.Errorf("there are more than 8 VLAN links below %q", chain[0].Attrs().Name)
}

func isVLAN(chain []netlink.Link, base string, tag ether.Tag) bool {
	v, ok := chain[0].(*netlink.Vlan)
	return ok && v.VlanId == int(tag.VID) && protoOf(v) == tag.TPID && hasName(chain[1], base)
}

// hasName reports whether name is the link's name or one of its alternative names, which
// the kernel accepts, too.
func hasName(l netlink.Link, name string) bool {
	if l.Attrs().Name == name {
		return true
	}
	for _, n := range l.Attrs().AltNames {
		if n == name {
			return true
		}
	}
	return false
}

func protoOf(v *netlink.Vlan) uint16 {
	if v.VlanProtocol == netlink.VLAN_PROTOCOL_UNKNOWN {
		return unix.ETH_P_8021Q // the kernel's default
	}
	return uint16(v.VlanProtocol)
}

// describe returns a description of the first link for errors, such as "a physical link".
func describe(chain []netlink.Link) string {
	v, ok := chain[0].(*netlink.Vlan)
	switch {
	case !ok && chain[0].Type() == "device":
		return "a physical link"
	case !ok:
		return fmt.Sprintf("a link of type %q", chain[0].Type())
	}
	return fmt.Sprintf("%s on %q", ether.Tag{TPID: protoOf(v), VID: uint16(v.VlanId)}, chain[1].Attrs().Name)
}

// canCarry returns an error if the kernel would not accept a macvlan on the link, or would
// accept it and send the frames elsewhere.
func (h *Host) canCarry(l netlink.Link) error {
	a := l.Attrs()
	if a.Flags&net.FlagLoopback != 0 || a.EncapType != "ether" {
		return fmt.Errorf("is not an Ethernet link (%s)", a.EncapType)
	}
	switch l.Type() {
	case "macvlan", "macvtap", "ipvlan", "ipvtap":
		if a.NetNsID >= 0 {
			return fmt.Errorf("is of type %s on a link in another network namespace, as in a system container: give this "+
				"one a network card, or a veth on a bridge, and name that", l.Type())
		}
		return fmt.Errorf("is of type %s itself: name the link below it", l.Type())
	}
	if a.MasterIndex == 0 {
		return nil
	}
	master, err := linkByIndex(h.handle, a.MasterIndex)
	// A VRF only routes; every other master receives the port's frames itself
	// (netdev_rx_handler_register returns EBUSY).
	if err != nil || master == nil || master.Type() == "vrf" {
		return err
	}
	return fmt.Errorf("is a port of the %s %q and cannot carry a network: use %q as parent", master.Type(),
		master.Attrs().Name, master.Attrs().Name)
}

// isOurs reports whether the link carries our mark. We create links of two types only; the
// same alias on another type was set by another program.
func isOurs(l netlink.Link) bool {
	return (l.Type() == "vlan" || l.Type() == "dummy") && l.Attrs().Alias == mark
}

func parentOf(chain []netlink.Link) Parent {
	a, trunk := chain[0].Attrs(), chain[len(chain)-1].Attrs()
	p := Parent{
		Name: a.Name, Index: a.Index, MAC: ether.MACOf(a.HardwareAddr), MTU: a.MTU, Up: isUp(chain[0]),
		Ours:  isOurs(chain[0]),
		Trunk: trunk.Name, TrunkIndex: trunk.Index,
	}
	if v, ok := chain[0].(*netlink.Vlan); ok {
		p.GVRP, p.MVRP = v.Gvrp != nil && *v.Gvrp, v.Mvrp != nil && *v.Mvrp
	}
	for _, l := range chain {
		p.Chain = append(p.Chain, l.Attrs().Index)
	}
	for i := len(chain) - 2; i >= 0; i-- {
		v := chain[i].(*netlink.Vlan) // below continues past VLAN links only
		p.Tags = append(p.Tags, ether.Tag{TPID: protoOf(v), VID: uint16(v.VlanId)})
	}
	return p
}

// Down returns why no frame can pass through the parent now (`"eth0" has no carrier`), or
// "" if parent and trunk are up and have a carrier.
func (h *Host) Down(p Parent) (why string, err error) {
	// The trunk first: if it is down, the links on it have no carrier.
	for _, at := range []struct {
		name  string
		index int
	}{{p.Trunk, p.TrunkIndex}, {p.Name, p.Index}} {
		l, err := linkByIndex(h.handle, at.index)
		switch {
		case err != nil:
			return "", fmt.Errorf("read link %q: %w", at.name, err)
		case l == nil:
			return fmt.Sprintf("%q is gone", at.name), nil
		case l.Attrs().RawFlags&unix.IFF_UP == 0:
			return fmt.Sprintf("%q is down", at.name), nil
		case l.Attrs().RawFlags&unix.IFF_LOWER_UP == 0:
			return fmt.Sprintf("%q has no carrier", at.name), nil
		}
		if p.Index == p.TrunkIndex {
			break
		}
	}
	return "", nil
}

// ParentUnicast lists the unicast MACs that the link with that ifindex receives besides its
// own: those of the macvlans that are up on it, in all namespaces.
func (h *Host) ParentUnicast(index int) (macs []ether.MAC, err error) {
	list, err := h.UnicastMACs(index)
	for _, u := range list {
		macs = append(macs, u.MAC)
	}
	return macs, err
}

// UnicastMAC is a unicast MAC that a link receives besides its own.
type UnicastMAC struct {
	Parent int // ifindex of the link
	MAC    ether.MAC
}

// UnicastMACs lists what [Host.ParentUnicast] does for an ifindex, of all links if index is 0. A MAC on a
// VLAN is also on the links below.
func (h *Host) UnicastMACs(index int) (macs []UnicastMAC, err error) {
	entries, err := dump(func() ([]netlink.Neigh, error) { return h.handle.NeighList(index, unix.AF_BRIDGE) })
	if err != nil {
		return nil, fmt.Errorf("list the unicast MACs of link %d: %w", index, explainErrno(err))
	}
	for _, e := range entries {
		if e.Flags&netlink.NTF_SELF != 0 && e.State&netlink.NUD_PERMANENT != 0 && len(e.HardwareAddr) == 6 &&
			e.HardwareAddr[0]&1 == 0 {
			macs = append(macs, UnicastMAC{Parent: e.LinkIndex, MAC: ether.MACOf(e.HardwareAddr)})
		}
	}
	return macs, nil
}

// NeighboursOf returns the addresses that the host's neighbour table has for a MAC on the
// link with that ifindex: those of a station that the host has talked to. An entry may be
// old.
func (h *Host) NeighboursOf(index int, mac ether.MAC) (addrs []netip.Addr, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		entries, err := dump(func() ([]netlink.Neigh, error) { return h.handle.NeighList(index, family) })
		if err != nil {
			return nil, fmt.Errorf("list the neighbours of link %d: %w", index, explainErrno(err))
		}
		for _, e := range entries {
			known := e.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED|netlink.NUD_NOARP) == 0
			if a, ok := netip.AddrFromSlice(e.IP); ok && known && ether.MACOf(e.HardwareAddr) == mac {
				addrs = append(addrs, a.Unmap())
			}
		}
	}
	return addrs, nil
}

// Interfaces lists the host's links.
func (h *Host) Interfaces() (list []net.Interface, err error) {
	err = h.Do(func() (err error) {
		list, err = net.Interfaces()
		return err
	})
	return list, err
}
