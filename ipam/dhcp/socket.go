package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// socket exchanges frames with servers on one interface.
type socket struct {
	conn *packet.Conn
	buf  []byte
	sent int // number of frames
}

// openSocket opens a packet socket on an interface of the calling thread's network namespace, given by
// ifindex, with the program that selects what it receives.
func openSocket(ifindex int, program []bpf.RawInstruction) (*socket, error) {
	// All protocols: a guard drops some frames before sockets of one protocol receive them.
	c, err := packet.Listen(&net.Interface{Index: ifindex}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: program})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return &socket{conn: c, buf: make([]byte, 1<<16)}, nil
}

// Close closes the socket. The kernel waits for RCU when a packet socket closes (packet_release in
// net/packet/af_packet.c), 10 to 20 ms on an idle machine: the caller does not wait.
func (s *socket) Close() {
	go func() { _ = s.conn.Close() }() // it holds nothing that could be lost
}

// write sends a frame once.
func (s *socket) write(dest ether.MAC, frame []byte) error {
	// The frame has its addresses; the library requires one all the same.
	_, err := s.conn.WriteTo(frame, &packet.Addr{HardwareAddr: dest.Hardware()})
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("send to DHCP servers: %w", err)
	}
	s.sent++
	return nil // a frame that this host drops is one without an answer: evidence says why
}

// Intervals between two messages: short at first, because a start waits.
const (
	firstWait = time.Second
	maxWait   = 4 * time.Second
)

// exchange calls send, and repeats that. It passes each frame that arrives to done, until that returns
// true or ctx ends: then exchange returns false.
func (s *socket) exchange(ctx context.Context, send func() error, done func([]byte) bool) (answered bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }) // ends a read
	defer stop()
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, maxWait) {
		if err := send(); err != nil {
			return false, err
		}
		until := time.Now().Add(wait)
		for {
			if err := s.conn.SetReadDeadline(until); err != nil {
				return false, err
			}
			if ctx.Err() != nil {
				return false, nil
			}
			b, err := s.read()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return false, err
			}
			if done(b) {
				return true, nil
			}
			if !time.Now().Before(until) {
				break // a flood of other frames must not prevent the next message
			}
		}
	}
	return false, nil
}

// read returns one frame. It is valid until the next read, and empty if the link went down.
func (s *socket) read() ([]byte, error) {
	n, _, err := s.conn.ReadFrom(s.buf)
	if errors.Is(err, unix.ENETDOWN) { // reported once when the link goes down
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read from packet socket: %w", err)
	}
	return s.buf[:n], nil
}
