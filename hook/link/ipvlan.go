package link

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// IPVlanMode is an ipvlan mode: "l2", "l3" or "l3s", as in ip-link(8).
type IPVlanMode string

var ipvlanModes = map[IPVlanMode]netlink.IPVlanMode{
	"l2": netlink.IPVLAN_MODE_L2, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S,
}

// IPVlanFlag controls traffic between ipvlans on one parent: "bridge", "private" or "vepa".
type IPVlanFlag string

var ipvlanFlags = map[IPVlanFlag]netlink.IPVlanFlag{
	"bridge": netlink.IPVLAN_FLAG_BRIDGE, "private": netlink.IPVLAN_FLAG_PRIVATE, "vepa": netlink.IPVLAN_FLAG_VEPA,
}

// IPVlanSpec describes a container's interface. Its MAC is the parent's; the kernel
// identifies the containers by their addresses.
type IPVlanSpec struct {
	Name   string // inside the container
	Parent Parent
	Mode   IPVlanMode
	Flag   IPVlanFlag
	MTU    int  // 0: the parent's
	IPv6   bool // as in MacvlanSpec
	RA     bool // as in MacvlanSpec
	// Passing is the temporary name of the link during its creation, used if Name is
	// taken in the host's namespace. An ipvlan has no MAC of its own to find it by, so
	// the caller must know this name to find an unfinished link.
	Passing string
}

func (s *IPVlanSpec) validate() error {
	for _, name := range []string{s.Name, s.Passing} {
		if err := ValidName(name); err != nil {
			return err
		}
	}
	if _, ok := ipvlanModes[s.Mode]; !ok {
		return fmt.Errorf("%q is not an ipvlan mode", s.Mode)
	}
	if _, ok := ipvlanFlags[s.Flag]; !ok {
		return fmt.Errorf("%q is not an ipvlan flag", s.Flag)
	}
	if s.MTU > s.Parent.MTU {
		return fmt.Errorf("MTU %d is more than the %d of parent %q", s.MTU, s.Parent.MTU, s.Parent.Name)
	}
	return nil
}

// CreateIPVlan creates the interface directly in the namespace and sets it up, as
// CreateMacvlan does. It returns ErrNameTaken, or ErrNoLink if the parent is gone. On error
// it deletes what it created.
func (h *Host) CreateIPVlan(ctx context.Context, n *Netns, spec IPVlanSpec) (i Interface, err error) {
	defer func() {
		if err != nil {
			i, err = Interface{}, fmt.Errorf("create interface %s: %w", clip(spec.Name), err)
		}
	}()
	if err = spec.validate(); err != nil {
		return i, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.MTU, attrs.Namespace = spec.Name, spec.Parent.Index, spec.MTU,
		netlink.NsFd(n.Fd())
	link := &netlink.IPVlan{LinkAttrs: attrs, Mode: ipvlanModes[spec.Mode], Flag: ipvlanFlags[spec.Flag]}
	err = h.handle.LinkAdd(link)
	if errors.Is(err, unix.EEXIST) {
		link.Name = spec.Passing
		err = h.handle.LinkAdd(link)
	}
	if err != nil {
		return i, explainIPVlan(err, &spec)
	}
	l, err := n.createdLink(link.Name)
	if err != nil {
		return i, err
	}
	i = interfaceOf(l)
	if err = n.bringUp(ctx, &i, spec.Name, mark, func() error { return setIPv6(i.Name, spec.IPv6, spec.RA) }); err != nil {
		return i, errors.Join(err, n.DeleteInterface(i))
	}
	return i, nil
}

func explainIPVlan(err error, spec *IPVlanSpec) error {
	parent := spec.Parent.Name
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("parent %q is gone: %w", parent, ErrNoLink)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("parent %q is in use by another kind of link (a bridge, a bond, macvlan)", parent)
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("the kernel has no ipvlan: run \"modprobe ipvlan\"")
	}
	return explainErrno(err)
}

// FindIPVlan returns the ipvlan on the host's parent with the ifindex parentIndex: the one
// with the ifindex index or, if that is 0, one with any of the names. It returns nil if no
// ipvlan matches.
func (n *Netns) FindIPVlan(parentIndex, index int, names ...string) (*Interface, error) {
	all, err := n.OnHostParents()
	for _, i := range all {
		if i.Kind != "ipvlan" || i.ParentIndex != parentIndex {
			continue
		}
		if index != 0 && i.Index == index || index == 0 && slices.Contains(names, i.Name) {
			return &i, nil
		}
	}
	return nil, err
}
