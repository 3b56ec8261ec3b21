package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Number gives the number that the host's namespace knows n by (its nsid, as
// "ip netns list-id" shows it), and has the kernel choose one first if n has
// none. The number is n's until the last process and descriptor have let go of
// it, and may be another namespace's afterwards.
func (h *Host) Number(n *Netns) (int, error) {
	err := h.handle.SetNetNsIdByFd(n.fd, -1)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("number a network namespace: %w", plain(err))
	}
	id, err := h.handle.GetNetNsIdByFd(n.fd)
	if err == nil && id < 0 {
		err = errors.New("the kernel gave it none")
	}
	if err != nil {
		return 0, fmt.Errorf("number a network namespace: %w", err)
	}
	return id, nil
}

// Numbered says whether any living namespace has the number: one system call,
// which waits for nobody (rtnl_net_getid takes no RTNL), where FindNetns looks
// at every process of the host.
func (h *Host) Numbered(id int) (bool, error) {
	value := make([]byte, 4)
	binary.NativeEndian.PutUint32(value, uint32(id))
	req := nl.NewNetlinkRequest(unix.RTM_GETNSID, 0)
	req.AddData(nl.NewRtGenMsg())
	req.AddData(nl.NewRtAttr(netlink.NETNSA_NSID, value))
	err := inside(h.fd, func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for network namespace number %d: %w", id, err)
	}
	return true, nil
}

// LinkIn returns the interface that has the index in the namespace with the number.
// It is nil where no namespace has the number, or the namespace has no such interface.
// It sees namespaces that FindNetns cannot: those that are pinned in another mount
// namespace, where no process of the host is in them. A namespace that the kernel is
// taking down is gone.
func (h *Host) LinkIn(id, index int) (*Interface, error) {
	answers, err := h.requestIn(id, index, unix.RTM_GETLINK, 0)
	// The kernel says EINVAL of a number that no namespace has (rtnl_get_net_ns_capable).
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

// DeleteIn deletes what LinkIn has returned. A missing interface is no error.
func (h *Host) DeleteIn(id int, i Interface) error {
	_, err := h.requestIn(id, i.Index, unix.RTM_DELLINK, unix.NLM_F_ACK)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %q in network namespace number %d: %w", i.Name, id, err)
	}
	return nil
}

// requestIn asks something of one interface in the namespace with the number.
func (h *Host) requestIn(id, index, kind, flags int) (answers [][]byte, err error) {
	number := make([]byte, 4)
	binary.NativeEndian.PutUint32(number, uint32(id))
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, number)) // Linux 4.20
	err = inside(h.fd, func() (err error) {
		answers, err = req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	return answers, err
}
