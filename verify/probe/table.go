package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// Table is a prober that reads the answers from the kernel's neighbour table.
//
// For each question it adds an entry in state INCOMPLETE to the table and sends the probe itself.
// The kernel sends nothing for an entry that was added in this way (net/core/neighbour.c,
// __neigh_update: a state that is not valid stops the timer), so no frame leaves with another
// address of the namespace as its sender. The entry only receives the answer: a unicast ARP reply
// makes it REACHABLE, any other ARP from the address STALE, an advertisement to all nodes STALE.
// The table also receives answers of siblings, which never reach the trunk. Because the kernel
// sends nothing for it, an INCOMPLETE entry must not be left behind: packets for it would be
// queued, and the kernel would never ask.
//
// The program on the trunk sees what the table cannot show. Of two answers to an ARP probe, the
// table keeps the first, because the kernel lets no other override it for a second
// (net.ipv4.neigh.*.locktime). For IPv6 the override flag of RFC 4861 §7.2.5 decides, which Linux
// sets in its answers. A claimant that is only probing does not appear in the table.
type Table struct {
	ifindex int
	mac     ether.MAC
	sender  verify.Sender

	requests, events int // netlink sockets; two, so that a flood of events loses no acknowledgement
	waiter           waiter
	buf              []byte
	asked            map[netip.Addr]*asked
	answers          []verify.Answer // read, but not returned yet
	// overrun reports that events were lost. Further events are lost without an error until the
	// socket has been read empty (net/netlink/af_netlink.c, NETLINK_S_CONGESTED).
	overrun bool
}

type asked struct {
	conflict bool
	answered bool
}

var _ verify.Prober = (*Table)(nil)

// OpenTable opens a prober on an interface, given by ifindex, of the calling thread's network
// namespace. mac is the interface's. IPv6 must be enabled on it to ask for IPv6 addresses. sender
// is used until Close, and remains the caller's to close.
func OpenTable(ifindex int, mac ether.MAC, sender verify.Sender) (_ *Table, err error) {
	t := &Table{
		ifindex: ifindex, mac: mac, sender: sender,
		requests: -1, events: -1, waiter: waiter{-1},
		buf:   make([]byte, 8<<10), // an event or answer has one entry
		asked: map[netip.Addr]*asked{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open neighbour table: %w", err), t.closeAll())
		}
	}()
	if t.requests, err = openRoute(0); err != nil {
		return nil, err
	}
	if t.events, err = openRoute(unix.RTMGRP_NEIGH); err != nil {
		return nil, err
	}
	if t.waiter, err = newWaiter(); err != nil {
		return nil, err
	}
	return t, nil
}

// Ask starts the question, also if the table already had an answer: an entry that is already valid
// causes no event when it is confirmed.
//
// For a question from an address that the interface does not have yet, it only sends the frame: the
// kernel would ignore the answer, but the trunk's program sees it.
func (t *Table) Ask(q verify.Question) error {
	if q.From.IsValid() {
		return Send(t.sender, t.ifindex, t.mac, q)
	}
	entry := neigh{ifindex: t.ifindex, addr: q.Addr, state: unix.NUD_INCOMPLETE}
	request := entry.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	if _, err := roundTrip(t.requests, request, t.buf); err != nil {
		return fmt.Errorf("prepare neighbour entry for %s: %w", q.Addr, explainErrno(err, q.Addr))
	}
	t.asked[q.Addr] = &asked{conflict: q.Conflict}
	return Send(t.sender, t.ifindex, t.mac, q)
}

// explainErrno says what an errno of the kernel means here, and what to do.
func explainErrno(err error, addr netip.Addr) error {
	switch {
	case errors.Is(err, unix.EINVAL) && addr.Is6(), errors.Is(err, unix.EAFNOSUPPORT):
		return errors.New("IPv6 is off on the interface: set net.ipv6.conf.*.disable_ipv6=0, or omit IPv6 addresses")
	case errors.Is(err, unix.ENOBUFS):
		return errors.New("the host's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 (or net.ipv6)")
	}
	return err
}

// Next waits for the next answer: see verify.Prober.
func (t *Table) Next(ctx context.Context, wait time.Duration) (verify.Answer, error) {
	until := time.Now().Add(wait)
	for {
		if len(t.answers) > 0 {
			a := t.answers[0]
			t.answers = t.answers[1:]
			return a, nil
		}
		more, err := t.read()
		if err != nil {
			return verify.Answer{}, err
		}
		switch {
		case len(t.answers) > 0:
		case !more:
			err = t.waiter.wait(ctx, t.events, until)
		default:
			_, err = remaining(ctx, until) // a flood of other events must not prolong the wait
		}
		if err != nil {
			return verify.Answer{}, err
		}
	}
}

// read reads one event. It returns false if no event is waiting.
func (t *Table) read() (more bool, err error) {
	messages, err := receive(t.events, t.buf)
	switch {
	case err == nil:
		for _, m := range messages {
			if m.Header.Type == unix.RTM_NEWNEIGH {
				t.take(m.Data)
			}
		}
	case errors.Is(err, errForged):
	case errors.Is(err, unix.ENOBUFS):
		t.overrun = true
	case errors.Is(err, unix.EAGAIN):
		if !t.overrun {
			return false, nil
		}
		t.overrun = false
		return true, t.reread()
	default:
		return false, fmt.Errorf("read neighbour events: %w", err)
	}
	return true, nil
}

// take records an entry if it answers a question that was asked.
func (t *Table) take(message []byte) {
	n, ok := parseNeigh(message)
	if !ok || n.ifindex != t.ifindex || n.mac.IsZero() || n.mac == t.mac {
		return
	}
	q, ok := t.asked[n.addr]
	if !ok || !q.answeredBy(n) {
		return
	}
	q.answered = true
	t.answers = append(t.answers, verify.Answer{Addr: n.addr, MAC: n.mac, At: verify.Now()})
}

// answeredBy reports whether an entry in this state is an answer. Any frame of a claimant proves
// that it exists. A gateway must answer: its own ARP requests, which make the entry STALE, arrive
// even if no frame of this interface reaches it. For IPv6 the states do not differ, but a gateway
// sends its own solicitations to other groups than the interface's.
func (q *asked) answeredBy(n neigh) bool {
	if n.addr.Is4() && !q.conflict {
		return n.state == unix.NUD_REACHABLE
	}
	return n.state&learnedStates != 0
}

// reread reads each entry again after events were lost.
func (t *Table) reread() error {
	for addr := range t.asked {
		entry := neigh{ifindex: t.ifindex, addr: addr}
		messages, err := roundTrip(t.requests, entry.request(unix.RTM_GETNEIGH, 0), t.buf)
		if errors.Is(err, unix.ENOENT) {
			continue // deleted by the kernel's garbage collection: the question will be repeated
		}
		if err != nil {
			return fmt.Errorf("read neighbour entry of %s: %w", addr, err)
		}
		for _, m := range messages {
			if m.Header.Type == unix.RTM_NEWNEIGH {
				t.take(m.Data)
			}
		}
	}
	return nil
}

// Close removes the entries of addresses that the container is about to take, and entries without
// an answer. A gateway's entry stays: it was learned as the kernel learns one, ages like any other,
// and saves the container's first packet an ARP exchange.
func (t *Table) Close() error {
	var errs []error
	for addr, q := range t.asked {
		if q.answered && !q.conflict {
			continue
		}
		entry := neigh{ifindex: t.ifindex, addr: addr}
		_, err := roundTrip(t.requests, entry.request(unix.RTM_DELNEIGH, unix.NLM_F_ACK), t.buf)
		// The entry may be gone already, by garbage collection or with the interface.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete neighbour entry of %s: %w", addr, err))
		}
	}
	return errors.Join(append(errs, t.closeAll())...)
}

func (t *Table) closeAll() error {
	var errs []error
	for _, fd := range []int{t.requests, t.events, t.waiter.eventfd} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
