package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Number returns the nsid of n in the host's namespace, as "ip netns list-id" shows it. If n
// has none, the kernel assigns one first. The nsid is valid until the last process and
// descriptor of n are closed; then the kernel may give it to another namespace.
func (h *Host) Number(n *Netns) (int, error) {
	err := h.handle.SetNetNsIdByFd(n.fd, -1)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("assign an id to a network namespace: %w", explainErrno(err))
	}
	id, err := h.handle.GetNetNsIdByFd(n.fd)
	if err == nil && id < 0 {
		err = errors.New("the kernel assigned none")
	}
	if err != nil {
		return 0, fmt.Errorf("read the id of a network namespace: %w", err)
	}
	return id, nil
}

// Numbered reports whether any existing namespace has the nsid. It is one system call that
// does not wait for locks (rtnl_net_getid takes no RTNL), while FindNetns reads every
// process of the host.
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
		return false, fmt.Errorf("look up network namespace id %d: %w", id, err)
	}
	return true, nil
}
