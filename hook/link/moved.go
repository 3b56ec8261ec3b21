package link

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// movedBuffer is the size of the receive buffer for link changes, in bytes: a bond with thousands of
// VLANs on it causes thousands of messages at once.
const movedBuffer = 1 << 20

// MovedLinks calls moved with the ifindex of each link of the host that is connected to another port
// of its switch now, until ctx ends: a bond has changed its active port, or the driver of a virtual
// card asks for announcements after a migration (NETDEV_NOTIFY_PEERS). If that link is a port of
// another link, such as a bridge, that one has moved, too. MovedLinks returns an error if netlink
// messages are lost.
func (h *Host) MovedLinks(ctx context.Context, moved func(index int)) error {
	var s *nl.NetlinkSocket
	err := h.Do(func() (err error) {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
		return err
	})
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", explainErrno(err))
	}
	defer s.Close()
	if err := s.SetReceiveBufferSize(movedBuffer, true); err != nil {
		return fmt.Errorf("enlarge the buffer for link changes: %w", explainErrno(err))
	}
	defer context.AfterFunc(ctx, s.Close)() // ends Receive
	for {
		msgs, from, err := s.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read link changes: %w", err)
		}
		for _, m := range msgs {
			if from.Pid != nl.PidKernel || m.Header.Type != unix.RTM_NEWLINK {
				continue
			}
			index, master, ok := parseMove(m.Data)
			if ok {
				moved(index)
			}
			if ok && master != 0 {
				moved(master)
			}
		}
	}
}

// parseMove reads a message about a link. ok reports whether its event is NETDEV_NOTIFY_PEERS, or
// NETDEV_BONDING_FAILOVER, which a bond with num_grat_arp=0 sends alone. index
// is the link's ifindex, master that of the link which it is a port of; 0: of none.
func parseMove(data []byte) (index, master int, ok bool) {
	if len(data) < unix.SizeofIfInfomsg {
		return 0, 0, false
	}
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return 0, 0, false
	}
	for _, a := range attrs {
		if len(a.Value) != 4 {
			continue
		}
		switch value := binary.NativeEndian.Uint32(a.Value); a.Attr.Type {
		case unix.IFLA_EVENT:
			ok = value == unix.IFLA_EVENT_NOTIFY_PEERS || value == unix.IFLA_EVENT_BONDING_FAILOVER
		case unix.IFLA_MASTER:
			master = int(value)
		}
	}
	return int(nl.DeserializeIfInfomsg(data).Index), master, ok
}
