package link

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/netns"
)

// Netns is a container's network namespace, held open with a netlink socket in it. Its
// methods may be called from any goroutine.
type Netns struct {
	*netns.Namespace
	// Tries is the maximum number of reads of a list that changes during each read. The
	// owner of the namespace can cause such changes without end. 0: dumpTries.
	Tries int

	handle *netlink.Handle
	host   int // descriptor of the Host's namespace, which Host closes
}

// OpenNetns opens the network namespace of a process. It returns netns.ErrExited if the
// process has ended, and netns.ErrHostNetns for the host's own namespace.
func (h *Host) OpenNetns(pid int) (*Netns, error) {
	ns, err := h.ns.Open(pid)
	if err != nil {
		return nil, err
	}
	return h.own(ns)
}

// OpenNetnsPath opens the namespace that is mounted at path. The path must come from the
// administrator or the runtime, never from a caller of the service.
func (h *Host) OpenNetnsPath(path string) (*Netns, error) {
	ns, err := h.ns.OpenPath(path)
	if err != nil {
		return nil, err
	}
	return h.own(ns)
}

// FindNetns finds a namespace as netns.Host.Find does. It returns nil if it does not exist.
func (h *Host) FindNetns(inode, cookie uint64) (*Netns, error) {
	ns, err := h.ns.Find(inode, cookie)
	if err != nil || ns == nil {
		return nil, err
	}
	return h.own(ns)
}

// EachNetns calls visit once for every existing network namespace except the host's. It is
// for rebuilding a lost database. Each Netns is closed after its visit.
func (h *Host) EachNetns(visit func(*Netns)) error {
	return h.EachNetnsOf(func(uint64) bool { return true }, visit)
}

// EachNetnsOf is EachNetns for the namespaces with an inode that wanted accepts.
func (h *Host) EachNetnsOf(wanted func(inode uint64) bool, visit func(*Netns)) error {
	return h.ns.Each(wanted, func(ns *netns.Namespace) error {
		n, err := h.netnsOf(ns)
		if err != nil {
			return err
		}
		defer n.handle.Close()
		visit(n)
		return nil
	})
}

// own returns a Netns that closes ns. On error it closes ns itself.
func (h *Host) own(ns *netns.Namespace) (*Netns, error) {
	n, err := h.netnsOf(ns)
	if err != nil {
		ns.Close()
	}
	return n, err
}

// netnsOf opens a netlink socket in the namespace; it stays valid outside.
func (h *Host) netnsOf(ns *netns.Namespace) (*Netns, error) {
	n := &Netns{Namespace: ns, host: h.ns.Fd()}
	err := ns.Do(func() (err error) {
		n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink in a network namespace: %w", err)
	}
	return n, nil
}

// Close closes the socket and the descriptors of the namespace and its process.
func (n *Netns) Close() {
	n.handle.Close()
	n.Namespace.Close()
}

// LinkAt returns the interface with an ifindex, and whether it is set up. It returns nil if the
// namespace has no such interface.
func (n *Netns) LinkAt(index int) (i *Interface, up bool, err error) {
	l, err := linkByIndex(n.handle, index)
	if err != nil || l == nil {
		return nil, false, err
	}
	found := interfaceOf(l)
	return &found, l.Attrs().Flags&net.FlagUp != 0, nil
}
