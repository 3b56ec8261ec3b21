package dhcp

import (
	"bytes"
	"context"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Conn exchanges messages with servers for one client, on one interface. Closing it waits for RCU,
// about 16 ms.
type Conn interface {
	// Acquire gets a lease from the first server with a usable offer. It returns a *NoLease if there is
	// none until ctx ends.
	Acquire(ctx context.Context, r Request) (Lease, error)
	// Extend extends a lease: it asks the lease's server, or any server after the time Rebind. The
	// interface has the lease's address. Extend returns a *NoLease if there is no usable answer until
	// ctx ends, with ErrRefused among its reasons if the server ends the lease.
	Extend(ctx context.Context, old Lease, r Request) (Lease, error)
	// Release gives a lease back to its server. There is no answer to wait for. The interface may be one
	// without the lease's address, such as the parent of an interface that is gone.
	Release(l Lease) error
	// Decline tells the server that another station uses the lease's address.
	Decline(l Lease) error
	Close()
}

// conn4 is a Conn for DHCPv4 (RFC 2131).
type conn4 struct {
	*socket
	client Client
}

// Open opens a Conn for DHCPv4 on an interface of the calling thread's network namespace, given by
// ifindex. All other functions may be called on any thread.
func Open(ifindex int, c Client) (Conn, error) {
	f, err := filter()
	if err != nil {
		return nil, err
	}
	s, err := openSocket(ifindex, f)
	if err != nil {
		return nil, err
	}
	return &conn4{s, c}, nil
}

// filter returns the program of a packet socket that receives what servers send to clients.
func filter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append(ether.FromLAN(),
		bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: etherSize + 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 4},
		bpf.LoadMemShift{Off: etherSize},
		bpf.LoadIndirect{Off: etherSize, Size: 4}, // both ports
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort<<16 | clientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	))
}

// message returns a message of the client.
func (c *conn4) message(kind dhcpv4.MessageType, modifiers ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
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
func (c *conn4) wanted(m *dhcpv4.DHCPv4) {
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
func (c *conn4) send(w way, m *dhcpv4.DHCPv4) error { return c.write(w.dest, frame(w, m.ToBytes())) }

// answer is a message of a server.
type answer struct {
	*dhcpv4.DHCPv4
	from ether.MAC
	err  error // it cannot be decoded; DHCPv4 is then nil
}

// ask sends a message and repeats it. It passes each answer to it to done, until that returns true or
// ctx ends: then ask returns false.
func (c *conn4) ask(ctx context.Context, w way, m *dhcpv4.DHCPv4, done func(answer) bool) (answered bool, err error) {
	return c.exchange(ctx, func() error { return c.send(w, m) }, func(b []byte) bool {
		a := decode(b, m)
		return (a.DHCPv4 != nil || a.err != nil) && done(a)
	})
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
