package testenv

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// An Asked is a question that a responder has received: for an address, or for the IPv6 routers of
// the link.
type Asked struct {
	Addr  netip.Addr // zero if the question is for routers
	By    ether.MAC
	From  netip.Addr // 0.0.0.0 or :: in a probe
	Times int        // how often this question came so far, this one included
}

// A Reply is a responder's answer to a question.
type Reply struct {
	MAC   ether.MAC // the MAC that the answer claims for the address
	After time.Duration
	// Probes makes the responder probe for the address, as a station does that is about to take it,
	// instead of answering (RFC 5227 §2.1.1, RFC 4862 §5.4.3).
	Probes bool
}

// routerLifetime is the default lifetime of router advertisements (RFC 4861 §6.2.1).
const routerLifetime = 30 * time.Minute

// A Responder answers for addresses as a test tells it to. It can do what no Linux kernel does,
// such as the behaviour of other vendors' routers.
type Responder struct {
	conn   *packet.Conn
	answer func(Asked) []Reply
	done   chan struct{}

	mu     sync.Mutex
	times  map[netip.Addr]int
	timers []*time.Timer
}

// Respond makes the station answer on its card by a function, in addition to what its kernel
// answers for the station's addresses. It ends with Stop.
func (s *Station) Respond(answer func(Asked) []Reply) *Responder {
	s.lab.tb.Helper()
	return s.lab.respond(s.Namespace, s.Card, answer)
}

// Overhear passes to a function the questions that the host sends, as the switch's trunk port
// receives them: before the switch filters them, whatever their tags.
func (l *Lab) Overhear(hear func(Asked) []Reply) *Responder {
	l.tb.Helper()
	return l.respond(l.Switch, l.port, hear)
}

func (l *Lab) respond(n *Namespace, card string, answer func(Asked) []Reply) *Responder {
	l.tb.Helper()
	r := &Responder{answer: answer, done: make(chan struct{}), times: map[netip.Addr]int{}}
	index := n.link(l.tb, card).Attrs().Index
	must(l.tb, n.Do(func() (err error) {
		r.conn, err = packet.Listen(&net.Interface{Index: index}, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	go r.serve()
	return r
}

// Send sends a frame from the responder's card.
func (r *Responder) Send(frame []byte) error {
	_, err := r.conn.WriteTo(frame, &packet.Addr{HardwareAddr: make(net.HardwareAddr, 6)})
	return err
}

// Stop stops the responder. Pending replies are not sent.
func (r *Responder) Stop() {
	r.mu.Lock()
	for _, t := range r.timers {
		t.Stop()
	}
	r.mu.Unlock()
	r.conn.Close()
	<-r.done
}

func (r *Responder) serve() {
	defer close(r.done)
	buf := make([]byte, 2<<10)
	for {
		n, _, err := r.conn.ReadFrom(buf)
		if errors.Is(err, unix.ENETDOWN) {
			continue // reported once; the port may come up again, or Stop may close it
		}
		if err != nil {
			return
		}
		if q, ok := question(untagged(buf[:n])); ok {
			r.take(q)
		}
	}
}

// untagged returns a frame without the tags that are in its bytes: the kernel has already removed
// the outermost tag.
func untagged(frame []byte) []byte {
	for len(frame) > 18 && (frame[12] == 0x81 && frame[13] == 0 || frame[12] == 0x88 && frame[13] == 0xa8) {
		frame = append(frame[:12:12], frame[16:]...)
	}
	return frame
}

// question returns the question in a frame, or false if it is not one.
func question(frame []byte) (q Asked, ok bool) {
	if p, err := arp.Parse(frame); err == nil {
		return Asked{Addr: p.TargetIP, By: p.Sender, From: p.SenderIP}, !p.Reply && p.SenderIP != p.TargetIP
	}
	if m, err := ndp.Parse(frame); err == nil {
		return Asked{Addr: m.Target, By: m.Source, From: m.From}, !m.Advert
	}
	if r, err := ndp.ParseRouter(frame); err == nil {
		return Asked{By: r.Source, From: r.From}, !r.Advert
	}
	return q, false
}

func (r *Responder) take(q Asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times[q.Addr]++
	q.Times = r.times[q.Addr]
	for _, a := range r.answer(q) {
		frame, err := a.frame(q)
		if err != nil {
			continue // the address's family is not that of the answer
		}
		r.timers = append(r.timers, time.AfterFunc(a.After, func() { _ = r.Send(frame) }))
	}
}

// frame returns the reply as an Ethernet frame. It goes to the station that asked, or to all nodes
// if that station asked by IPv6 and has no address yet (RFC 4861 §7.2.4).
func (a Reply) frame(q Asked) ([]byte, error) {
	switch {
	case !q.Addr.IsValid():
		return ndp.Router{Source: a.MAC, From: a.MAC.LinkLocal(), Advert: true, Lifetime: routerLifetime}.Frame()
	case q.Addr.Is4() && a.Probes:
		return arp.Probe(a.MAC, q.Addr)
	case q.Addr.Is4():
		return arp.Packet{
			Destination: q.By, Source: a.MAC, Reply: true,
			Sender: a.MAC, SenderIP: q.Addr, Target: q.By, TargetIP: q.From,
		}.Frame()
	case a.Probes:
		return ndp.Probe(a.MAC, q.Addr)
	case q.From.IsUnspecified():
		return ndp.Announce(a.MAC, q.Addr)
	}
	return ndp.Message{
		Destination: q.By, Source: a.MAC, From: q.Addr, To: q.From, Target: q.Addr,
		Advert: true, Solicited: true, Override: true, LinkLayer: a.MAC,
	}.Frame()
}
