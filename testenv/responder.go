package testenv

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// An Asked is one question for an address that a responder has heard.
type Asked struct {
	Addr  netip.Addr
	By    verify.MAC
	From  netip.Addr // 0.0.0.0 or :: in a probe
	Times int        // how often it was asked for until now, this one included
}

// A Reply is what a responder says to a question.
type Reply struct {
	MAC   verify.MAC // who says that it holds the address
	After time.Duration
	// Probes says that it is about to take the address itself, instead of
	// answering (RFC 5227 §2.1.1, RFC 4862 §5.4.3).
	Probes bool
}

// A Responder answers for addresses in the way that a test tells it: what no
// kernel does, such as routers of other makes.
type Responder struct {
	conn   *packet.Conn
	answer func(Asked) []Reply
	done   chan struct{}

	mu     sync.Mutex
	times  map[netip.Addr]int
	timers []*time.Timer
}

// Respond has the station answer on its card by a function, beside whatever its
// kernel answers for addresses that it has. It ends with Stop.
func (s *Station) Respond(answer func(Asked) []Reply) *Responder {
	s.lab.tb.Helper()
	card := s.link(s.lab.tb, s.Card).Attrs()
	r := &Responder{answer: answer, done: make(chan struct{}), times: map[netip.Addr]int{}}
	must(s.lab.tb, s.Do(func() (err error) {
		r.conn, err = packet.Listen(&net.Interface{Index: card.Index}, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	go r.serve()
	return r
}

// Send puts a frame out of the responder's card.
func (r *Responder) Send(frame []byte) error {
	_, err := r.conn.WriteTo(frame, &packet.Addr{HardwareAddr: make(net.HardwareAddr, 6)})
	return err
}

// Stop ends it; what was still to be said is not said.
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
			continue // said once: the port comes again, or Stop does
		}
		if err != nil {
			return
		}
		if q, ok := question(buf[:n]); ok {
			r.take(q)
		}
	}
}

// question reads what a frame asks for.
func question(frame []byte) (q Asked, ok bool) {
	if p, err := arp.Parse(frame); err == nil {
		return Asked{Addr: p.TargetIP, By: p.Sender, From: p.SenderIP}, !p.Reply && p.SenderIP != p.TargetIP
	}
	if m, err := ndp.Parse(frame); err == nil {
		return Asked{Addr: m.Target, By: m.Source, From: m.From}, !m.Advert
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
			continue // an address of another family than its answer
		}
		r.timers = append(r.timers, time.AfterFunc(a.After, func() { _ = r.Send(frame) }))
	}
}

// frame gives the reply as it goes on the wire: to the one who asked, or to all
// where that one has no address yet and asks by IPv6 (RFC 4861 §7.2.4).
func (a Reply) frame(q Asked) ([]byte, error) {
	switch {
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
