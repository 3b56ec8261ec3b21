package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// NSID returns the nsid of n in the host's namespace, as "ip netns list-id" shows it. If n
// has none, the kernel assigns one first. The nsid is valid until the last process and
// descriptor of n are closed; then the kernel may give it to another namespace.
func (h *Host) NSID(n *Netns) (int, error) {
	err := h.handle.SetNetNsIdByFd(n.Fd(), -1)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("assign an id to a network namespace: %w", explainErrno(err))
	}
	id, err := h.handle.GetNetNsIdByFd(n.Fd())
	if err == nil && id < 0 {
		err = errors.New("the kernel assigned none")
	}
	if err != nil {
		return 0, fmt.Errorf("read the id of a network namespace: %w", err)
	}
	return id, nil
}

// HasNSID reports whether any existing namespace has the nsid. It is one system call that
// does not wait for locks (rtnl_net_getid takes no RTNL), while FindNetns reads every
// process of the host.
func (h *Host) HasNSID(id int) (bool, error) {
	value := make([]byte, 4)
	binary.NativeEndian.PutUint32(value, uint32(id))
	req := nl.NewNetlinkRequest(unix.RTM_GETNSID, 0)
	req.AddData(nl.NewRtGenMsg())
	req.AddData(nl.NewRtAttr(netlink.NETNSA_NSID, value))
	err := h.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up network namespace id %d: %w", id, err)
	}
	return true, nil
}

// LinkIn returns the interface with an ifindex in the namespace with an nsid. It returns nil if
// no namespace has the nsid, if the kernel is removing the namespace, or if the namespace
// has no such interface. It also sees namespaces that FindNetns does not find, because they
// have no process and are pinned in another mount namespace.
func (h *Host) LinkIn(id, index int) (*Interface, error) {
	answers, err := h.requestIn(id, index, unix.RTM_GETLINK, 0)
	// EINVAL: no namespace has the number (rtnl_get_net_ns_capable).
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("the kernel gave %d answers", len(answers))
	}
	var l netlink.Link
	if err == nil {
		l, err = netlink.LinkDeserialize(nil, answers[0])
	}
	if err != nil {
		return nil, fmt.Errorf("look for interface %d in network namespace number %d: %w", index, id, err)
	}
	i := interfaceOf(l)
	return &i, nil
}

// HasAddrIn reports whether an interface that LinkIn returned has any of the addresses.
func (h *Host) HasAddrIn(id, index int, addrs []netip.Prefix) (bool, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		answers, err := h.addrsIn(id, index, family)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
			return false, nil // the namespace or the interface is gone
		}
		if err != nil {
			return false, fmt.Errorf("read addresses of interface %d in network namespace number %d: %w", index, id, err)
		}
		for _, m := range answers {
			attrs, err := nl.ParseRouteAttrAsMap(m[unix.SizeofIfAddrmsg:])
			if err != nil {
				return false, fmt.Errorf("address of interface %d in network namespace number %d: %w", index, id, err)
			}
			local, ok := attrs[unix.IFA_LOCAL] // IPv6 addresses without a peer have IFA_ADDRESS only
			if !ok {
				local = attrs[unix.IFA_ADDRESS]
			}
			a, _ := netip.AddrFromSlice(local.Value)
			if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr() == a }) {
				return true, nil
			}
		}
	}
	return false, nil
}

// addrsIn dumps the addresses of one family. The kernel looks at the nsid and at the ifindex on
// sockets with strict checks only (inet_valid_dump_ifaddr_req); on others it would dump the
// addresses of the host.
func (h *Host) addrsIn(id, index, family int) (answers [][]byte, err error) {
	number := make([]byte, 4)
	binary.NativeEndian.PutUint32(number, uint32(id))
	err = h.Do(func() error {
		s, err := nl.Subscribe(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
			return err
		}
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
		msg := nl.NewIfAddrmsg(family)
		msg.Index = uint32(index)
		req.AddData(msg)
		req.AddData(nl.NewRtAttr(unix.IFA_TARGET_NETNSID, number))
		answers, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
		return err
	})
	return answers, err
}

// DeleteIn deletes an interface that LinkIn returned. A missing interface is not an error.
func (h *Host) DeleteIn(id int, i Interface) error {
	_, err := h.requestIn(id, i.Index, unix.RTM_DELLINK, unix.NLM_F_ACK)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %q in network namespace number %d: %w", i.Name, id, err)
	}
	return nil
}

// requestIn sends a netlink request about the interface with an ifindex in the namespace with an nsid.
func (h *Host) requestIn(id, index, kind, flags int) (answers [][]byte, err error) {
	number := make([]byte, 4)
	binary.NativeEndian.PutUint32(number, uint32(id))
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, number)) // Linux 4.20
	err = h.Do(func() (err error) {
		answers, err = req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	return answers, err
}
