package lldp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// groups are the addresses that LLDP frames are sent to. Bridges do not forward them beyond the
// nearest bridge, the nearest customer bridge, or the nearest bridge that is not two-port (IEEE
// 802.1AB-2016, table 7-1).
var groups = []net.HardwareAddr{
	{0x01, 0x80, 0xc2, 0, 0, 0x0e}, {0x01, 0x80, 0xc2, 0, 0, 0x03}, {0x01, 0x80, 0xc2, 0, 0, 0x00},
}

// Interval is how often switches send (msgTxInterval, IEEE 802.1AB-2016, 9.2.5.7). A listen of this
// time and a little more hears every switch that speaks LLDP.
const Interval = 30 * time.Second

// Listen waits up to wait for a frame on an interface, given by ifindex, of the calling thread's
// network namespace. It returns nil if no frame comes. Frames that cannot be parsed are skipped; if
// no other frame comes, Listen returns the reason.
func Listen(ctx context.Context, ifindex int, wait time.Duration) (n *Neighbour, err error) {
	conn, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, EtherType, nil)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, g := range groups {
		if err := conn.JoinGroup(g); err != nil {
			return nil, fmt.Errorf("join group %s: %w", g, err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var unreadable error
	buf := make([]byte, 10<<10) // jumbo frames
	for {
		size, _, err := conn.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errors.Join(ctx.Err(), unreadable)
		case errors.Is(err, unix.ENETDOWN): // reported once when the link goes down
			continue
		case err != nil:
			return nil, fmt.Errorf("read from packet socket: %w", err)
		}
		found, err := Parse(buf[:size])
		if err == nil {
			return &found, nil
		}
		if !errors.Is(err, ErrLeaves) {
			unreadable = err
		}
	}
}
