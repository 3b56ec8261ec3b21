package link

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addr is an address on an interface.
type Addr struct {
	Prefix netip.Prefix
	// DAD makes the kernel run duplicate address detection; without it an IPv6
	// address is usable at once. It has no effect for IPv4.
	DAD bool
	// Valid is the lifetime of the address, in whole seconds. The kernel removes it then. 0: it has
	// no end. Preferred is as Valid, and not longer: then the address is deprecated. A deprecated address
	// that is valid needs Deprecated.
	Valid, Preferred time.Duration
	// Tentative and Duplicate are set by Addrs only: DAD is in progress, or found
	// another station with the address.
	Tentative, Duplicate bool
	// Autoconf is set by Addrs only: the kernel configured the address from a router advertisement.
	Autoconf, Deprecated bool
	// StablePrivacy is set by Addrs only: the kernel made the address from a secret (RFC 7217). No process
	// can set the flag.
	StablePrivacy bool
}

// addrBusyWait is the maximum wait for an address that an ipvlan in another namespace has.
const addrBusyWait = 3 * time.Second

// AddAddr adds an address to the interface with that ifindex. For an IPv4 subnet of more
// than two addresses it sets the broadcast address, too (RFC 3021: a subnet of two has
// none).
func (n *Netns) AddAddr(index int, a Addr) error {
	addr := addrOf(a)
	if a.Prefix.Addr().Is6() && !a.DAD {
		addr.Flags = unix.IFA_F_NODAD
	}
	// An address of an ipvlan is busy (ipvlan_addr_busy) until the kernel has cleaned up
	// the ended container's namespace in the background.
	err := retryFor(context.Background(), addrBusyWait, func() error { return n.handle.AddrAdd(onIndex(index), addr) },
		unix.EADDRINUSE)
	if err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = errors.New("the interface has it already")
		}
		return fmt.Errorf("add address %s: %w", a.Prefix, explainErrno(err))
	}
	return nil
}

// ExtendAddr changes for how long an address of the interface is valid.
func (n *Netns) ExtendAddr(index int, a Addr) error {
	if err := n.handle.AddrReplace(onIndex(index), addrOf(a)); err != nil {
		return fmt.Errorf("extend address %s: %w", a.Prefix, explainErrno(err))
	}
	return nil
}

// addrOf returns an address for the library, which sets Broadcast.
func addrOf(a Addr) *netlink.Addr {
	valid, preferred := int(a.Valid/time.Second), int(a.Preferred/time.Second)
	if preferred == 0 && !a.Deprecated {
		preferred = valid
	}
	return &netlink.Addr{IPNet: ipNet(a.Prefix), ValidLft: valid, PreferedLft: preferred}
}

// DelAddr removes an address from the interface with that ifindex. It returns nil if the
// address or the interface is not there.
func (n *Netns) DelAddr(index int, p netip.Prefix) error {
	err := n.handle.AddrDel(onIndex(index), &netlink.Addr{IPNet: ipNet(p)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete address %s: %w", p, explainErrno(err))
	}
	return nil
}

// Addrs lists the addresses of the interface with that ifindex, or of all interfaces if
// index is 0.
func (n *Netns) Addrs(index int) ([]Addr, error) {
	var on netlink.Link
	if index != 0 {
		on = onIndex(index)
	}
	list, err := dumpIn(n.Tries, func() ([]netlink.Addr, error) { return n.handle.AddrList(on, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := make([]Addr, 0, len(list))
	for _, a := range list {
		addrs = append(addrs, Addr{
			Prefix:    prefix(a.IPNet),
			Valid:     validFor(a.ValidLft),
			DAD:       a.Flags&unix.IFA_F_NODAD == 0,
			Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0,
			Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,

			Autoconf:   isAutoconf(a),
			Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
			Preferred:  validFor(a.PreferedLft),

			StablePrivacy: a.Flags&unix.IFA_F_STABLE_PRIVACY != 0,
		})
	}
	return addrs, nil
}

// validFor returns a lifetime of the kernel, in seconds; 0 for one that does not end.
func validFor(seconds int) time.Duration {
	if uint32(seconds) == math.MaxUint32 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

func onIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
