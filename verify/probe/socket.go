package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// Socket is a prober that reads every answer itself from a packet socket: all
// that answer for one address are heard, and so is a rival that is about to
// take it (an ARP probe, RFC 5227 §2.1.1; a solicitation from ::, RFC 4862
// §5.4.3). It leaves nothing in the namespace and needs neither BPF nor IPv6 on
// the interface. Closing it waits for RCU, about 16 ms.
type Socket struct {
	ifindex int
	mac     verify.MAC
	conn    *packet.Conn
	asked   map[netip.Addr]verify.Question
	routers bool                // were asked for
	groups  map[verify.MAC]bool // joined
	buf     []byte
}

var (
	_ verify.Prober = (*Socket)(nil)
	_ verify.Sender = (*Socket)(nil)
)

// OpenSocket opens a prober on an interface of the calling thread's network
// namespace; mac is the interface's.
//
// One socket serves both families, since each costs an RCU wait when closed.
func OpenSocket(ifindex int, mac verify.MAC) (*Socket, error) {
	f, err := filter()
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: f})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return &Socket{
		ifindex: ifindex, mac: mac, conn: conn,
		asked:  map[netip.Addr]verify.Question{},
		groups: map[verify.MAC]bool{},
		buf:    make([]byte, 2<<10), // ARP and ND fit any Ethernet frame
	}, nil
}

// Send puts a frame out of the socket's own interface.
func (s *Socket) Send(ifindex int, frame []byte) error {
	if ifindex != s.ifindex {
		return fmt.Errorf("send on interface %d: the socket is on %d", ifindex, s.ifindex)
	}
	return write(s.conn, frame)
}

// write sends a frame, which brings its addresses along; the library wants one
// all the same.
func write(conn *packet.Conn, frame []byte) error {
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: make(net.HardwareAddr, 6)})
	return err
}

// Ask sends one probe.
func (s *Socket) Ask(q verify.Question) error {
	// Where IPv6 is off nobody has joined all nodes, to whom a probe is
	// answered; a rival's own solicitation goes to the address's group.
	var err error
	switch toAll := ndp.GroupMAC(netip.IPv6LinkLocalAllNodes()); {
	case q.Routers:
		s.routers, err = true, s.join(toAll)
	case q.Addr.Is6():
		err = s.join(toAll, ndp.SolicitedNode(q.Addr))
	}
	if err != nil {
		return err
	}
	if !q.Routers {
		s.asked[q.Addr] = q
	}
	return Send(s, s.ifindex, s.mac, q)
}

func (s *Socket) join(groups ...verify.MAC) error {
	for _, g := range groups {
		if s.groups[g] {
			continue
		}
		if err := s.conn.JoinGroup(g.Hardware()); err != nil {
			return fmt.Errorf("join group %s: %w", g, err)
		}
		s.groups[g] = true
	}
	return nil
}

// atLeast is how long an answer is waited for: a read whose time is over as it begins
// does not look at what has come already.
const minWait = time.Millisecond

// Next waits for the next answer.
func (s *Socket) Next(ctx context.Context, wait time.Duration) (verify.Answer, error) {
	until := time.Now().Add(max(wait, minWait))
	if err := s.conn.SetReadDeadline(until); err != nil {
		return verify.Answer{}, err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// Long ago: the read ends now. Only a closed socket refuses, and its
		// read has ended already.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	for {
		n, _, err := s.conn.ReadFrom(s.buf)
		switch {
		case err == nil:
			if a := s.answer(s.buf[:n]); !a.MAC.IsZero() {
				a.At = verify.Now()
				return a, nil
			}
			// Frames of others, however many, must not keep us beyond the end.
			if _, err := remaining(ctx, until); err != nil {
				return verify.Answer{}, err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return verify.Answer{}, cmp.Or(ctx.Err(), context.DeadlineExceeded)
		case !errors.Is(err, unix.ENETDOWN): // said once when the link goes down; the verdict says it better
			return verify.Answer{}, fmt.Errorf("read from packet socket: %w", err)
		}
	}
}

// answer reads a frame; no MAC if it is no answer to what was asked.
func (s *Socket) answer(frame []byte) (a verify.Answer) {
	if a.Addr, a.MAC = s.claim(frame); !a.MAC.IsZero() || !s.routers {
		return a
	}
	// One with no lifetime says that it is no router to send anything by.
	if r, err := ndp.ParseRouter(frame); err == nil && r.Advert && r.Lifetime > 0 {
		return verify.Answer{Addr: r.From, MAC: r.Source, Router: true}
	}
	return a
}

// claim gives the address that a frame claims and the MAC that claims it; no
// MAC if it is no answer to what was asked.
func (s *Socket) claim(frame []byte) (netip.Addr, verify.MAC) {
	addr, mac, kind := claimARP(frame)
	if mac.IsZero() {
		addr, mac, kind = claimND(frame)
	}
	q, ok := s.asked[addr]
	switch {
	case !ok, mac == s.mac: // our own frame, come back from a switch that reflects it
		return addr, verify.MAC{}
	case !q.Conflict && kind != isReply:
		// A gateway has to answer: that it asks shows nothing of our way out.
		return addr, verify.MAC{}
	case q.Held && kind == isProbe:
		return addr, verify.MAC{}
	}
	return addr, mac
}

// A kind of claim is what a frame does about the address that it claims.
type kind int

const (
	isReply kind = iota // a reply, or an advertisement
	isUse               // the sender has the address
	isProbe             // the sender is about to take it
)

// claimARP reads what an ARP frame claims, and how.
func claimARP(frame []byte) (addr netip.Addr, mac verify.MAC, k kind) {
	p, err := arp.Parse(frame)
	switch {
	case err != nil:
		return addr, mac, k
	case p.Reply:
		return p.SenderIP, p.Sender, isReply
	case p.SenderIP.IsUnspecified():
		return p.TargetIP, p.Sender, isProbe
	}
	return p.SenderIP, p.Sender, isUse
}

// claimND reads what a solicitation or advertisement claims, and how.
func claimND(frame []byte) (addr netip.Addr, mac verify.MAC, k kind) {
	m, err := ndp.Parse(frame)
	if err != nil {
		return addr, mac, k
	}
	mac = m.LinkLayer
	if mac.IsZero() {
		mac = m.Source // the option may be left out of an answer to one station
	}
	switch {
	case m.Advert:
		return m.Target, mac, isReply
	case m.From.IsUnspecified():
		return m.Target, mac, isProbe
	}
	return m.From, mac, isUse
}

// Close closes the socket.
func (s *Socket) Close() error { return s.conn.Close() }

// SocketSender sends each frame from a packet socket of its own, which it closes
// again: about 16 ms each. It is for the few frames of those who have no BPF
// and keep no [Socket].
type SocketSender struct{}

var _ verify.Sender = SocketSender{}

// Send puts a frame out of an interface of the calling thread's namespace.
func (SocketSender) Send(ifindex int, frame []byte) (err error) {
	// Protocol 0 receives nothing.
	conn, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, 0, nil)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return write(conn, frame)
}
