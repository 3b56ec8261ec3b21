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

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// Socket is a prober that reads the answers from a packet socket. It sees all stations that answer
// for one address, and also a claimant that is about to take it (an ARP probe, RFC 5227 §2.1.1; a
// solicitation from ::, RFC 4862 §5.4.3). It leaves nothing in the namespace and needs neither BPF
// nor IPv6 on the interface. Closing it waits for RCU, about 16 ms.
type Socket struct {
	ifindex int
	mac     ether.MAC
	conn    *packet.Conn
	asked   map[netip.Addr]verify.Question
	routers bool               // routers were asked for
	groups  map[ether.MAC]bool // multicast groups that were joined
	buf     []byte
}

var (
	_ verify.Prober = (*Socket)(nil)
	_ verify.Sender = (*Socket)(nil)
)

// OpenSocket opens a prober on an interface, given by ifindex, of the calling thread's network
// namespace. mac is the interface's. It returns an error if the packet socket cannot be opened, for
// lack of CAP_NET_RAW or because the interface does not exist.
//
// One socket serves both families, because each socket costs an RCU wait when it is closed.
func OpenSocket(ifindex int, mac ether.MAC) (*Socket, error) {
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
		groups: map[ether.MAC]bool{},
		buf:    make([]byte, 2<<10), // ARP and ND fit any Ethernet frame
	}, nil
}

// Send sends a frame out of the socket's own interface. It returns an error for another ifindex.
func (s *Socket) Send(ifindex int, frame []byte) error {
	if ifindex != s.ifindex {
		return fmt.Errorf("send on interface %d: the socket is on %d", ifindex, s.ifindex)
	}
	return write(s.conn, frame)
}

// write sends a frame. The frame contains its addresses; the library requires one all the same.
func write(conn *packet.Conn, frame []byte) error {
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: make(net.HardwareAddr, 6)})
	return err
}

// Ask sends one probe.
func (s *Socket) Ask(q verify.Question) error {
	// If IPv6 is off, the interface has not joined the group of all nodes, to which a probe is
	// answered. A claimant's own solicitation goes to the address's group.
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

func (s *Socket) join(groups ...ether.MAC) error {
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

// minWait is the minimum time to wait for an answer: a read that begins after its deadline does not
// return frames that have already arrived.
const minWait = time.Millisecond

// Next waits for the next answer: see verify.Prober.
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
			// A flood of other frames must not prolong the wait.
			if _, err := remaining(ctx, until); err != nil {
				return verify.Answer{}, err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return verify.Answer{}, cmp.Or(ctx.Err(), context.DeadlineExceeded)
		case !errors.Is(err, unix.ENETDOWN): // reported once when the link goes down; the verdict says more
			return verify.Answer{}, fmt.Errorf("read from packet socket: %w", err)
		}
	}
}

// answer reads a frame. It returns no MAC if the frame is not an answer to a question that was
// asked.
func (s *Socket) answer(frame []byte) (a verify.Answer) {
	if a.Addr, a.MAC = s.claim(frame); !a.MAC.IsZero() || !s.routers {
		return a
	}
	// A router that advertises the lifetime 0 is not a default router (RFC 4861 §4.2).
	if r, err := ndp.ParseRouter(frame); err == nil && r.Advert && r.Lifetime > 0 {
		return verify.Answer{Addr: r.From, MAC: r.Source, Router: true}
	}
	return a
}

// claim returns the address that a frame claims and the MAC that claims it. It returns no MAC if
// the frame is not an answer to a question that was asked.
func (s *Socket) claim(frame []byte) (netip.Addr, ether.MAC) {
	addr, mac, kind := claimARP(frame)
	if mac.IsZero() {
		addr, mac, kind = claimND(frame)
	}
	q, ok := s.asked[addr]
	switch {
	case !ok, mac == s.mac: // an own frame that a switch has returned
		return addr, ether.MAC{}
	case !q.Conflict && (kind != isReply || !s.isTo(frame, q)):
		// A gateway must answer this interface: its own questions, its announcements and its answers to
		// other stations do not prove that frames reach it. A parent and a link in mode passthru hear those, too.
		return addr, ether.MAC{}
	case q.Held && kind == isProbe:
		return addr, ether.MAC{}
	}
	return addr, mac
}

// isTo reports whether a frame has the destination that an answer to a question has: the MAC that asked,
// or all nodes if an IPv6 gateway was asked from :: (RFC 4861 §7.2.4).
func (s *Socket) isTo(frame []byte, q verify.Question) bool {
	to := ether.MAC(frame[:6])
	toAll := q.Addr.Is6() && !q.From.IsValid() && to[0]&1 != 0
	return to == s.mac || toAll
}

// kind says how a frame claims an address.
type kind int

const (
	isReply kind = iota // a reply, or an advertisement
	isUse               // the sender uses the address
	isProbe             // the sender is about to take it
)

// claimARP returns the address and MAC of an ARP frame's claim, and its kind.
func claimARP(frame []byte) (addr netip.Addr, mac ether.MAC, k kind) {
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

// claimND returns the address and MAC of the claim in a solicitation or advertisement, and its
// kind.
func claimND(frame []byte) (addr netip.Addr, mac ether.MAC, k kind) {
	m, err := ndp.Parse(frame)
	if err != nil {
		return addr, mac, k
	}
	mac = m.LinkLayer
	if mac.IsZero() {
		mac = m.Source // a unicast answer may omit the option
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

// SocketSender sends each frame from its own packet socket, which it closes afterwards: about 16 ms
// each. It is for callers that send few frames, without BPF and without a [Socket].
type SocketSender struct{}

var _ verify.Sender = SocketSender{}

// Send sends a frame out of an interface, given by ifindex, of the calling thread's namespace.
func (SocketSender) Send(ifindex int, frame []byte) (err error) {
	// Protocol 0 receives nothing.
	conn, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, 0, nil)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return write(conn, frame)
}
