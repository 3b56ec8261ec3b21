package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/echo"
)

// Pinger sends echo requests from a packet socket: neither routes, nor filters, nor a path MTU that
// the namespace's kernel has learned decide what is sent.
type Pinger struct {
	conn *packet.Conn
	next echo.Request
	buf  []byte
}

var _ verify.Pinger = (*Pinger)(nil)

// OpenPinger opens a pinger on an interface, given by ifindex, of the calling thread's namespace. The
// kernel that has ends.From must answer the other station's questions for that address.
func OpenPinger(ifindex int, ends verify.Ends) (*Pinger, error) {
	f, err := echoFilter()
	if err != nil {
		return nil, err
	}
	// All protocols: the parent of an ipvlan passes a frame on before a socket for one protocol sees it.
	conn, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: f})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	next := echo.Request{Ends: ends, ID: uint16(rand.Uint32())}
	return &Pinger{conn: conn, next: next, buf: make([]byte, 256)}, nil // headers suffice
}

// Ping implements [verify.Pinger].
func (p *Pinger) Ping(ctx context.Context, size int, wait time.Duration) (pong verify.Pong, err error) {
	p.next.Seq++
	p.next.Size = size
	frame, err := p.next.Frame()
	if err != nil {
		return pong, err
	}
	start := time.Now()
	if err := p.conn.SetReadDeadline(start.Add(wait)); err != nil {
		return pong, err
	}
	// EMSGSIZE: the link's MTU is less than it was. As for a frame that was dropped, no answer comes.
	if err := write(p.conn, frame); err != nil && !verify.Dropped(err) && !errors.Is(err, unix.EMSGSIZE) {
		return pong, fmt.Errorf("send %d bytes to %s: %w", size, p.next.To, err)
	}
	for time.Since(start) < wait && ctx.Err() == nil {
		n, _, err := p.conn.ReadFrom(p.buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return pong, ctx.Err()
		case errors.Is(err, unix.ENETDOWN): // reported once when the link goes down
		case err != nil:
			return pong, fmt.Errorf("read from packet socket: %w", err)
		default:
			r, err := echo.Parse(p.buf[:n])
			if err == nil && r.From == p.next.To && r.ID == p.next.ID && r.Seq == p.next.Seq {
				return verify.Pong{Size: r.Size, Took: time.Since(start)}, nil
			}
		}
	}
	return pong, ctx.Err()
}

// Close closes the socket.
func (p *Pinger) Close() error { return p.conn.Close() }

// echoFilter returns the program of a packet socket that receives ICMP, and of IPv6 also fragments.
func echoFilter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append(ether.FromLAN(),
		bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 23, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMP, SkipTrue: 3, SkipFalse: 4},
		bpf.LoadAbsolute{Off: 20, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_FRAGMENT, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	))
}
