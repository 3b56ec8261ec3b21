package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// Request is what a client asks for.
type Request struct {
	Given
	Addr netip.Addr // the address to ask for (option 50); zero: any
	// Usable returns why the caller cannot use a lease, or nil. Other servers may offer a better one.
	Usable func(Lease) error
	// Accept is called with each offer before the client accepts it. After a success of Acquire, or if
	// the caller is killed, the server may have given that lease; after an error, it has it back.
	Accept func(Lease) error
}

// maxRounds is the number of offers that a client accepts, if servers do not confirm them.
const maxRounds = 3

// asker asks the servers of one family for a lease.
type asker interface {
	// discover returns the first usable offer, or nil.
	discover(ctx context.Context, r Request, failed *NoLease) (*Lease, error)
	// request accepts an offer. ok is false if the server does not confirm it, or confirms something
	// that the client cannot use: then the lease is given back, also if the confirmation may have been
	// lost.
	request(ctx context.Context, r Request, offer Lease, failed *NoLease) (l Lease, ok bool, err error)
}

// acquire is Acquire of a Conn, which sends through s.
func acquire(ctx context.Context, a asker, s *socket, r Request, failed *NoLease) (Lease, error) {
	start := time.Now()
	for range maxRounds {
		offer, err := a.discover(ctx, r, failed)
		if err != nil {
			return Lease{}, err
		}
		if offer == nil {
			break
		}
		if r.Accept != nil {
			if err := r.Accept(*offer); err != nil {
				return Lease{}, err
			}
		}
		l, ok, err := a.request(ctx, r, *offer, failed)
		if err != nil || ok {
			return l, err
		}
	}
	failed.Sent, failed.Waited = s.sent, time.Since(start)
	return Lease{}, failed
}

// Acquire implements Conn.
func (c *conn4) Acquire(ctx context.Context, r Request) (Lease, error) {
	return acquire(ctx, c, c.socket, r, &NoLease{Protocol: V4})
}

// add keeps an unusable answer of a DHCPv4 server.
func (e *NoLease) add(a answer, err error) {
	var server netip.Addr
	if a.DHCPv4 != nil {
		server, _ = netip.AddrFromSlice(a.ServerIdentifier().To4())
	}
	e.keep(server, a.from, err)
}

// keep keeps an unusable answer, once.
func (e *NoLease) keep(server netip.Addr, mac ether.MAC, err error) {
	r := Refused{e.Protocol, server, mac, err}
	same := func(have Refused) bool { return have.Error() == r.Error() }
	if len(e.Refused) < maxRefused && !slices.ContainsFunc(e.Refused, same) {
		e.Refused = append(e.Refused, r)
	}
}

func (c *conn4) discover(ctx context.Context, r Request, failed *NoLease) (offer *Lease, err error) {
	m, err := c.message(dhcpv4.MessageTypeDiscover, c.wanted)
	if err != nil {
		return nil, err
	}
	if r.Addr.IsValid() {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(r.Addr.AsSlice()))
	}
	_, err = c.ask(ctx, broadcast(c.client.MAC), m, func(a answer) bool {
		if a.err == nil && a.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		l, err := c.read(a, r)
		if err != nil {
			failed.add(a, err)
			return false
		}
		offer = &l
		return true
	})
	return offer, err
}

// read returns the lease in an answer, if the client can use it.
func (c *conn4) read(a answer, r Request) (Lease, error) {
	if a.err != nil {
		return Lease{}, a.err
	}
	l, err := leaseOf(a.DHCPv4, r.Given, boottime.Now())
	l.ServerMAC = a.from
	if err == nil && r.Usable != nil {
		err = r.Usable(l)
	}
	return l, err
}

func (c *conn4) request(
	ctx context.Context, r Request, offer Lease, failed *NoLease,
) (l Lease, ok bool, err error) {
	m, err := c.message(dhcpv4.MessageTypeRequest, c.wanted,
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.Server.AsSlice())))
	if err != nil {
		return l, false, err
	}
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.Addr.Addr().AsSlice()))
	refused := false
	answered, err := c.ask(ctx, broadcast(c.client.MAC), m, func(a answer) bool {
		done, lerr := c.confirmed(a, r, offer, &l)
		if lerr != nil {
			failed.add(a, lerr)
		}
		ok, refused = done && lerr == nil, errors.Is(lerr, ErrRefused)
		return done
	})
	if !ok && !refused {
		if !l.Addr.IsValid() {
			l = offer
		}
		err = errors.Join(err, c.Release(l))
	}
	if err == nil && !answered {
		failed.add(answer{from: offer.ServerMAC}, fmt.Errorf("offers %s and then confirms nothing", offer.Addr.Addr()))
	}
	return l, ok, err
}

// ErrRefused is the reason of a server that ends a lease, or does not grant it (DHCPNAK).
var ErrRefused = errors.New("refuses")

// confirmed reads the answer to a request for old into l. done is false if the answer is not one.
func (c *conn4) confirmed(a answer, r Request, old Lease, l *Lease) (done bool, err error) {
	if a.err != nil {
		return false, a.err
	}
	switch a.MessageType() {
	case dhcpv4.MessageTypeNak:
		return true, fmt.Errorf("%w address %s%s", ErrRefused, old.Addr.Addr(), because(a.DHCPv4))
	case dhcpv4.MessageTypeAck:
	default:
		return false, nil
	}
	*l, err = c.read(a, r)
	if err == nil && l.Addr.Addr() != old.Addr.Addr() {
		err = fmt.Errorf("confirms address %s instead of %s", l.Addr.Addr(), old.Addr.Addr())
	}
	return true, err
}

// because returns the text that a server sends with a refusal.
func because(m *dhcpv4.DHCPv4) string {
	text := bytes.TrimRight(m.Options.Get(dhcpv4.OptionMessage), "\x00")
	if len(text) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.80q)", text)
}

// Extend implements Conn.
func (c *conn4) Extend(ctx context.Context, old Lease, r Request) (l Lease, err error) {
	start := time.Now()
	m, err := c.message(dhcpv4.MessageTypeRequest, c.wanted, dhcpv4.WithClientIP(old.Addr.Addr().AsSlice()))
	if err != nil {
		return l, err
	}
	w := c.fromLease(old)
	if old.Rebind <= boottime.Now() || old.ServerMAC.IsZero() {
		w = broadcast(c.client.MAC)
		w.from = old.Addr.Addr()
	}
	failed, ok := &NoLease{Protocol: V4}, false
	if _, err = c.ask(ctx, w, m, func(a answer) bool {
		done, lerr := c.confirmed(a, r, old, &l)
		if lerr != nil {
			failed.add(a, lerr)
		}
		ok = done && lerr == nil
		return done
	}); err != nil || ok {
		return l, err
	}
	if l.Addr.IsValid() && l.Addr.Addr() != old.Addr.Addr() {
		err = c.Release(l)
	}
	failed.Sent, failed.Waited = c.sent, time.Since(start)
	return Lease{}, errors.Join(failed, err)
}

// fromLease returns the way from the lease's address to its server.
func (c *conn4) fromLease(l Lease) way {
	return way{c.client.MAC, l.ServerMAC, l.Addr.Addr(), l.Server}
}

// Release implements Conn.
func (c *conn4) Release(l Lease) error {
	m, err := c.message(dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(l.Addr.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return err
	}
	return c.send(c.fromLease(l), m)
}

// Decline implements Conn. It broadcasts (RFC 2131 §4.4.4).
func (c *conn4) Decline(l Lease) error {
	m, err := c.message(dhcpv4.MessageTypeDecline, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return err
	}
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(l.Addr.Addr().AsSlice()))
	m.UpdateOption(dhcpv4.OptMessage("address is in use"))
	return c.send(broadcast(c.client.MAC), m)
}
