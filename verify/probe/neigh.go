package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// learnedStates are the states in which the kernel has learned a MAC from the wire, not from an
// administrator (include/uapi/linux/neighbour.h).
const learnedStates = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE

// neigh is an entry of the kernel's neighbour table.
type neigh struct {
	ifindex int
	addr    netip.Addr
	state   uint16
	mac     ether.MAC
}

// ndmsgLen is the size of struct ndmsg.
const ndmsgLen = 12

// request returns a netlink message of the given type and flags about one entry.
func (n neigh) request(kind, flags uint16) []byte {
	dst := n.addr.AsSlice()
	size := unix.SizeofNlMsghdr + ndmsgLen + unix.SizeofRtAttr + len(dst)
	family := byte(unix.AF_INET)
	if n.addr.Is6() {
		family = unix.AF_INET6
	}
	e := binary.NativeEndian
	b := make([]byte, 0, size)
	b = e.AppendUint32(b, uint32(size))
	b = e.AppendUint16(b, kind)
	b = e.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence and port: one request at a time
	b = append(b, family, 0, 0, 0)
	b = e.AppendUint32(b, uint32(n.ifindex))
	b = e.AppendUint16(b, n.state)
	b = append(b, 0, 0)
	b = e.AppendUint16(b, uint16(unix.SizeofRtAttr+len(dst)))
	b = e.AppendUint16(b, unix.NDA_DST)
	return append(b, dst...)
}

// parseNeigh reads the body of an RTM_NEWNEIGH. It returns false if the entry has no IP address or
// the message is malformed.
func parseNeigh(b []byte) (n neigh, ok bool) {
	if len(b) < ndmsgLen {
		return neigh{}, false
	}
	n.ifindex = int(binary.NativeEndian.Uint32(b[4:]))
	n.state = binary.NativeEndian.Uint16(b[8:])
	for b = b[ndmsgLen:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return neigh{}, false
		}
		value := b[unix.SizeofRtAttr:size]
		switch binary.NativeEndian.Uint16(b[2:]) {
		case unix.NDA_DST:
			n.addr, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			n.mac = ether.MACOf(value)
		}
		b = b[min(len(b), (size+3)&^3):] // padded to four bytes, except perhaps the last
	}
	return n, n.addr.IsValid()
}

// openRoute opens a route netlink socket in the thread's namespace, and joins the groups of the bit
// mask.
func openRoute(groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// roundTrip sends a request and returns the kernel's messages. They have arrived when sendto
// returns: rtnetlink works in the sender's thread. It returns the errno of an NLMSG_ERROR.
func roundTrip(fd int, request, buf []byte) ([]syscall.NetlinkMessage, error) {
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	messages, err := receive(fd, buf)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				return nil, syscall.Errno(errno)
			}
		}
	}
	return messages, nil
}

// errForged is returned for a message that does not come from the kernel.
var errForged = errors.New("not from the kernel")

// receive reads one datagram without waiting. Every process with CAP_NET_ADMIN in the namespace,
// such as another container of the pod, can write to the socket: receive accepts only messages from
// port 0, the kernel.
func receive(fd int, buf []byte) ([]syscall.NetlinkMessage, error) {
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
		return nil, errForged
	}
	messages, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil {
		return nil, fmt.Errorf("read netlink message of %d bytes: %w", n, err)
	}
	return messages, nil
}
