package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoLink is returned where a parent, or the link below it, does not exist.
var ErrNoLink = errors.New("no such link")

// mark is the alias (IFLA_IFALIAS) of the links that we made. Unlike a
// database it cannot be lost while the link is there, and `ip link` shows it.
const mark = "lanyard"

// Tag is one VLAN tag.
type Tag struct {
	Proto uint16 // 0x8100 or 0x88a8
	VID   uint16
}

// Parent is a host link that can carry a network.
type Parent struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	MTU   int
	Up    bool // administratively
	// Ours says that the link is a VLAN sub-interface that carries our mark.
	Ours bool
	// Trunk is the first link below that is not a VLAN link; the parent itself
	// where that is none.
	Trunk      string
	TrunkIndex int
	// Tags that a frame of this parent carries on the trunk, outer first.
	Tags []Tag
}

// Resolve finds an existing parent and what is below it, changing nothing. It
// refuses, in words, what cannot carry macvlans.
func (h *Host) Resolve(name string) (Parent, error) {
	base, vid, err := ParseParent(name)
	if err != nil {
		return Parent{}, fmt.Errorf("parent %w", err)
	}
	p, _, err := h.find(name, base, vid)
	if err != nil {
		return Parent{}, fmt.Errorf("parent %q: %w", name, err)
	}
	return p, nil
}

// find looks a parent up by name and, where vid is not 0, checks that it is
// that VLAN on base.
func (h *Host) find(name, base string, vid uint16) (Parent, netlink.Link, error) {
	l, err := linkByName(h.handle, name)
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
	if vid != 0 && !isVLAN(chain, base, vid) {
		return Parent{}, nil, fmt.Errorf("is %s, not VLAN %d on %q: rename that link or choose another parent", describe(chain), vid, base)
	}
	if err := h.canCarry(l); err != nil {
		return Parent{}, nil, err
	}
	return parentOf(chain), l, nil
}

// below is the chain of VLAN links from l down to its trunk, both included.
func (h *Host) below(l netlink.Link) ([]netlink.Link, error) {
	chain := []netlink.Link{l}
	// The kernel bounds the chain (MAX_NEST_DEV); so do we, in case it
	// changes under our eyes.
	for range 8 {
		a := l.Attrs()
		if l.Type() != "vlan" {
			return chain, nil
		}
		if a.NetNsID >= 0 {
			return nil, fmt.Errorf("%q is a VLAN on a link in another network namespace: name a parent whose trunk is in this one", a.Name)
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

func isVLAN(chain []netlink.Link, base string, vid uint16) bool {
	v, ok := chain[0].(*netlink.Vlan)
	return ok && v.VlanId == int(vid) && protoOf(v) == unix.ETH_P_8021Q && named(chain[1], base)
}

// named looks at alternative names, too, as the kernel does.
func named(l netlink.Link, name string) bool {
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
		return unix.ETH_P_8021Q // what the kernel takes when it is not told
	}
	return uint16(v.VlanProtocol)
}

// describe says what a link is that was taken for another.
func describe(chain []netlink.Link) string {
	v, ok := chain[0].(*netlink.Vlan)
	switch {
	case !ok && chain[0].Type() == "device":
		return "a physical link"
	case !ok:
		return fmt.Sprintf("a link of type %q", chain[0].Type())
	case protoOf(v) != unix.ETH_P_8021Q:
		return fmt.Sprintf("VLAN %d on %q by protocol %#x", v.VlanId, chain[1].Attrs().Name, protoOf(v))
	}
	return fmt.Sprintf("VLAN %d on %q", v.VlanId, chain[1].Attrs().Name)
}

// canCarry says why the kernel would not let a macvlan stand on the link, or
// would let it and send the frames elsewhere.
func (h *Host) canCarry(l netlink.Link) error {
	a := l.Attrs()
	if a.Flags&net.FlagLoopback != 0 || a.EncapType != "ether" {
		return fmt.Errorf("is not an Ethernet link (%s)", a.EncapType)
	}
	switch l.Type() {
	case "macvlan", "macvtap", "ipvlan", "ipvtap":
		return fmt.Errorf("is of type %s itself: name the link below it", l.Type())
	}
	if a.MasterIndex == 0 {
		return nil
	}
	master, err := linkByIndex(h.handle, a.MasterIndex)
	// A VRF only routes; every other master takes the frames for itself
	// (netdev_rx_handler_register answers EBUSY).
	if err != nil || master == nil || master.Type() == "vrf" {
		return err
	}
	return fmt.Errorf("is a port of the %s %q and cannot carry a network: use %q as parent", master.Type(), master.Attrs().Name, master.Attrs().Name)
}

func parentOf(chain []netlink.Link) Parent {
	a, trunk := chain[0].Attrs(), chain[len(chain)-1].Attrs()
	p := Parent{
		Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, MTU: a.MTU, Up: isUp(chain[0]),
		Ours:  chain[0].Type() == "vlan" && a.Alias == mark,
		Trunk: trunk.Name, TrunkIndex: trunk.Index,
	}
	for i := len(chain) - 2; i >= 0; i-- {
		v := chain[i].(*netlink.Vlan) // below() went on past VLAN links only
		p.Tags = append(p.Tags, Tag{Proto: protoOf(v), VID: uint16(v.VlanId)})
	}
	return p
}

// Down says why nothing can pass through the parent now (`"eth0" has no
// carrier`), or "" where parent and trunk are up and have a carrier.
func (h *Host) Down(p Parent) (why string, err error) {
	// The trunk first: where it is down, what stands on it has no carrier.
	for _, at := range []struct {
		name  string
		index int
	}{{p.Trunk, p.TrunkIndex}, {p.Name, p.Index}} {
		l, err := linkByIndex(h.handle, at.index)
		switch {
		case err != nil:
			return "", fmt.Errorf("look at link %q: %w", at.name, err)
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

// ParentUnicast lists the unicast MACs that the parent takes in besides its
// own: those of the macvlans that are up on it, in whichever namespace.
func (h *Host) ParentUnicast(index int) ([]net.HardwareAddr, error) {
	entries, err := whole(func() ([]netlink.Neigh, error) { return h.handle.NeighList(index, unix.AF_BRIDGE) })
	if err != nil {
		return nil, fmt.Errorf("list the unicast MACs of link %d: %w", index, err)
	}
	var macs []net.HardwareAddr
	for _, e := range entries {
		if e.Flags&netlink.NTF_SELF != 0 && e.State&netlink.NUD_PERMANENT != 0 && len(e.HardwareAddr) == 6 && e.HardwareAddr[0]&1 == 0 {
			macs = append(macs, e.HardwareAddr)
		}
	}
	return macs, nil
}
