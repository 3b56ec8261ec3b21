package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Conn exchanges messages with servers for one client, on one interface. Closing it waits for RCU,
// about 16 ms.
type Conn struct {
	client Client
	conn   *packet.Conn
	buf    []byte
	sent   int // number of messages
}

// Open opens a Conn on an interface of the calling thread's network namespace, given by ifindex. All
// other methods may be called on any thread.
func Open(ifindex int, c Client) (*Conn, error) {
	f, err := filter()
	if err != nil {
		return nil, err
	}
	// All protocols: a guard drops some frames before sockets of one protocol receive them.
	conn, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: f})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return &Conn{client: c, conn: conn, buf: make([]byte, 1<<16)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.conn.Close() }

// filter returns the program of a packet socket that receives what servers send to clients, without
// a tag: a macvlan on a trunk receives the frames of VLANs for which the host has no interface.
func filter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 10},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: etherSize + 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 4},
		bpf.LoadMemShift{Off: etherSize},
		bpf.LoadIndirect{Off: etherSize, Size: 4}, // both ports
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort<<16 | clientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}

// message returns a message of the client.
func (c *Conn) message(kind dhcpv4.MessageType, modifiers ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.New(
		dhcpv4.WithHwAddr(c.client.MAC.Hardware()),
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(c.client.id())),
	)
	if err != nil {
		return nil, err
	}
	for _, modify := range modifiers {
		modify(m)
	}
	return m, nil
}

// wanted adds what a message that asks for a lease has besides: the hostname, and which options the
// client uses.
func (c *Conn) wanted(m *dhcpv4.DHCPv4) {
	if c.client.Hostname != "" {
		m.UpdateOption(dhcpv4.OptHostName(c.client.Hostname))
	}
	m.UpdateOption(dhcpv4.OptMaxMessageSize(1500))
	// RFC 3442: classless routes before routers.
	m.UpdateOption(dhcpv4.OptParameterRequestList(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, classlessMicrosoft, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU,
		dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue, dhcpv4.OptionDNSDomainSearchList,
	))
}

// send sends a message once.
func (c *Conn) send(w way, m *dhcpv4.DHCPv4) error {
	// The frame has its addresses; the library requires one all the same.
	_, err := c.conn.WriteTo(frame(w, m.ToBytes()), &packet.Addr{HardwareAddr: w.dest.Hardware()})
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("send to DHCP servers: %w", err)
	}
	c.sent++
	return nil // a frame that this host drops is one without an answer: evidence says why
}

// Intervals between two messages: short at first, because a start waits.
const (
	firstWait = time.Second
	maxWait   = 4 * time.Second
)

// answer is a message of a server.
type answer struct {
	*dhcpv4.DHCPv4
	from ether.MAC
	err  error // it cannot be decoded; DHCPv4 is then nil
}

// ask sends a message and repeats it. It passes each answer to it to done, until that returns true or
// ctx ends: then ask returns false.
func (c *Conn) ask(ctx context.Context, w way, m *dhcpv4.DHCPv4, done func(answer) bool) (answered bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) }) // ends a read
	defer stop()
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, maxWait) {
		if err := c.send(w, m); err != nil {
			return false, err
		}
		until := time.Now().Add(wait)
		for {
			if err := c.conn.SetReadDeadline(until); err != nil {
				return false, err
			}
			if ctx.Err() != nil {
				return false, nil
			}
			a, err := c.receive(m)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return false, err
			}
			if (a.DHCPv4 != nil || a.err != nil) && done(a) {
				return true, nil
			}
			if !time.Now().Before(until) {
				break // a flood of other frames must not prevent the next message
			}
		}
	}
	return false, nil
}

// receive reads one frame. The answer is empty if the frame is not an answer to the message.
func (c *Conn) receive(m *dhcpv4.DHCPv4) (a answer, err error) {
	n, _, err := c.conn.ReadFrom(c.buf)
	if errors.Is(err, unix.ENETDOWN) { // reported once when the link goes down
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("read from packet socket: %w", err)
	}
	return decode(c.buf[:n], m), nil
}

// decode returns the answer to a message in a frame. It is empty if the frame has no answer.
func decode(b []byte, m *dhcpv4.DHCPv4) (a answer) {
	text, from, err := payload(b)
	// The transaction and the client's MAC are at fixed places: so a malformed answer is told from
	// the traffic of other clients.
	if err != nil || len(text) < 34 || !bytes.Equal(text[4:8], m.TransactionID[:]) ||
		!bytes.Equal(text[28:34], m.ClientHWAddr) {
		return a
	}
	a.from = from
	got, err := dhcpv4.FromBytes(text)
	switch {
	case err != nil:
		a.err = fmt.Errorf("sends a malformed answer: %w", err)
	case got.OpCode == dhcpv4.OpcodeBootReply:
		a.DHCPv4 = got
	}
	return a
}
