package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// conn6 is a Conn for DHCPv6 (RFC 8415).
type conn6 struct {
	*socket
	client Client
}

// Open6 opens a Conn for DHCPv6 on an interface of the calling thread's network namespace, given by
// ifindex. All other functions may be called on any thread. The client sends from the link-local address
// that belongs to its MAC: that is usable, or the caller needs no answer. It does not ask for an address
// in two messages (rapid commit): the caller could not record the lease before the server gives it.
func Open6(ifindex int, c Client) (Conn, error) {
	f, err := filter6()
	if err != nil {
		return nil, err
	}
	s, err := openSocket(ifindex, f)
	if err != nil {
		return nil, err
	}
	return &conn6{s, c}, nil
}

// duid returns the client identifier: the hardware type and the MAC (RFC 8415 §11.4).
func (c Client) duid() DUID { return append(DUID{0, 3, 0, 1}, c.MAC[:]...) }

// iaid returns the identifier of the client's only interface.
func (c Client) iaid() (id [4]byte) { return [4]byte(c.MAC[2:]) }

// message returns a message of the client about a lease; the zero Lease asks for any address.
func (c *conn6) message(kind dhcpv6.MessageType, l Lease) (*dhcpv6.Message, error) {
	m, err := dhcpv6.NewMessage()
	if err != nil {
		return nil, err
	}
	m.MessageType = kind
	m.AddOption(generic6(dhcpv6.OptionClientID, c.client.duid()))
	if len(l.ServerID) > 0 && kind != dhcpv6.MessageTypeRebind {
		m.AddOption(generic6(dhcpv6.OptionServerID, l.ServerID))
	}
	ia := &dhcpv6.OptIANA{IaId: c.client.iaid()}
	if l.Addr.IsValid() {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: l.Addr.Addr().AsSlice()})
	}
	m.AddOption(ia)
	m.AddOption(dhcpv6.OptElapsedTime(0))
	switch kind {
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		return m, nil
	}
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList))
	if c.client.Hostname != "" {
		dhcpv6.WithFQDN(1, c.client.Hostname)(m) // the server may add it to its DNS (RFC 4704)
	}
	return m, nil
}

// generic6 returns an option with those bytes.
func generic6(code dhcpv6.OptionCode, b []byte) dhcpv6.Option {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: b}
}

// answer6 is a message of a server.
type answer6 struct {
	*dhcpv6.Message
	mac  ether.MAC
	from netip.Addr // the server's, or the relay's
	err  error      // it cannot be decoded; Message is then nil
}

// decode6 returns the answer to a message in a frame. It is empty if the frame has no answer.
func decode6(b []byte, m *dhcpv6.Message) (a answer6) {
	text, mac, from, err := payload6(b)
	if err != nil || len(text) < 4 || !bytes.Equal(text[1:4], m.TransactionID[:]) {
		return a
	}
	switch dhcpv6.MessageType(text[0]) {
	case dhcpv6.MessageTypeAdvertise, dhcpv6.MessageTypeReply:
	default:
		return a
	}
	a.mac, a.from = mac, from
	got, err := dhcpv6.MessageFromBytes(text)
	if err != nil {
		a.err = fmt.Errorf("sends a malformed answer: %w", err)
		return a
	}
	// A transaction has few bits: that of another client can have the same.
	if id := got.GetOneOption(dhcpv6.OptionClientID); id == nil ||
		!bytes.Equal(id.ToBytes(), m.GetOneOption(dhcpv6.OptionClientID).ToBytes()) {
		return answer6{}
	}
	a.Message = got
	return a
}

// send sends a message once.
func (c *conn6) send(m *dhcpv6.Message) error {
	return c.write(serversMAC, frame6(c.client.MAC, m.ToBytes()))
}

// ask sends a message and repeats it. It passes each answer of a kind to done, and those that cannot be
// decoded, until that returns true or ctx ends: then ask returns false.
func (c *conn6) ask(
	ctx context.Context, m *dhcpv6.Message, kind dhcpv6.MessageType, done func(answer6) bool,
) (answered bool, err error) {
	start := time.Now()
	send := func() error {
		m.UpdateOption(dhcpv6.OptElapsedTime(time.Since(start)))
		return c.send(m)
	}
	return c.exchange(ctx, send, func(b []byte) bool {
		a := decode6(b, m)
		return (a.err != nil || a.Message != nil && a.MessageType == kind) && done(a)
	})
}

// Acquire implements Conn.
func (c *conn6) Acquire(ctx context.Context, r Request) (Lease, error) {
	return acquire(ctx, c, c.socket, r, &NoLease{Protocol: V6})
}

func (c *conn6) discover(ctx context.Context, r Request, failed *NoLease) (offer *Lease, err error) {
	m, err := c.message(dhcpv6.MessageTypeSolicit, Lease{})
	if err != nil {
		return nil, err
	}
	_, err = c.ask(ctx, m, dhcpv6.MessageTypeAdvertise, func(a answer6) bool {
		l, err := c.read(a, r, Lease{})
		if err != nil {
			failed.keep(a.from, a.mac, err)
			return false
		}
		offer = &l
		return true
	})
	return offer, err
}

// read returns the lease in an answer, if the client can use it: if possible with the address of old.
func (c *conn6) read(a answer6, r Request, old Lease) (Lease, error) {
	if a.err != nil {
		return Lease{}, a.err
	}
	l, err := leaseOf6(a.Message, c.client.iaid(), old.Addr, boottime.Now())
	l.Server, l.ServerMAC = a.from, a.mac
	if err == nil && r.Usable != nil {
		err = r.Usable(l)
	}
	return l, err
}

func (c *conn6) request(
	ctx context.Context, r Request, offer Lease, failed *NoLease,
) (l Lease, ok bool, err error) {
	m, err := c.message(dhcpv6.MessageTypeRequest, offer)
	if err != nil {
		return l, false, err
	}
	refused := false
	answered, err := c.ask(ctx, m, dhcpv6.MessageTypeReply, func(a answer6) bool {
		got, lerr := c.read(a, r, offer)
		if lerr == nil && got.Addr != offer.Addr {
			lerr = fmt.Errorf("confirms address %s instead of %s", got.Addr.Addr(), offer.Addr.Addr())
		}
		if lerr != nil {
			failed.keep(a.from, a.mac, lerr)
		}
		if a.err == nil {
			l, ok, refused = got, lerr == nil, errors.Is(lerr, ErrRefused)
		}
		return a.err == nil
	})
	if !ok && !refused {
		if !l.Addr.IsValid() || len(l.ServerID) == 0 {
			l = offer
		}
		err = errors.Join(err, c.Release(l))
	}
	if err == nil && !answered {
		failed.keep(offer.Server, offer.ServerMAC, fmt.Errorf("offers %s and then confirms nothing", offer.Addr.Addr()))
	}
	return l, ok, err
}

// errNoBinding is the reason of a server that does not know a lease, and may give it again.
var errNoBinding = fmt.Errorf("%w to extend a lease that it does not know", ErrRefused)

// Extend implements Conn. A server that does not know the lease, as after the loss of its leases, is
// requested to give the same address (RFC 8415 §18.2.10.1).
func (c *conn6) Extend(ctx context.Context, old Lease, r Request) (l Lease, err error) {
	start, failed := time.Now(), &NoLease{Protocol: V6}
	kind := dhcpv6.MessageTypeRenew
	if old.Rebind <= boottime.Now() || len(old.ServerID) == 0 {
		kind = dhcpv6.MessageTypeRebind
	}
	l, ok, err := c.extendBy(ctx, kind, old, r, failed)
	if err == nil && !ok && errors.Is(failed, errNoBinding) {
		old.ServerID = l.ServerID
		failed.Refused = nil
		l, ok, err = c.extendBy(ctx, dhcpv6.MessageTypeRequest, old, r, failed)
	}
	if err != nil || ok {
		return l, err
	}
	failed.Sent, failed.Waited = c.sent, time.Since(start)
	return Lease{}, failed
}

// extendBy asks for the extension of a lease by a message of that kind. ok is false without a usable
// answer; then l has the identifier of the server that has refused.
func (c *conn6) extendBy(
	ctx context.Context, kind dhcpv6.MessageType, old Lease, r Request, failed *NoLease,
) (l Lease, ok bool, err error) {
	m, err := c.message(kind, old)
	if err != nil {
		return l, false, err
	}
	_, err = c.ask(ctx, m, dhcpv6.MessageTypeReply, func(a answer6) bool {
		got, lerr := c.read(a, r, old)
		if lerr != nil {
			failed.keep(a.from, a.mac, lerr)
		}
		ok = lerr == nil
		// Another answer to a message to all servers can be better than one that cannot be used.
		if ok || errors.Is(lerr, ErrRefused) {
			l = got
			return true
		}
		return false
	})
	return l, ok, err
}

// Release implements Conn. All servers receive it, and the lease's has it back.
func (c *conn6) Release(l Lease) error { return c.sendAbout(dhcpv6.MessageTypeRelease, l) }

// Decline implements Conn.
func (c *conn6) Decline(l Lease) error { return c.sendAbout(dhcpv6.MessageTypeDecline, l) }

func (c *conn6) sendAbout(kind dhcpv6.MessageType, l Lease) error {
	m, err := c.message(kind, l)
	if err != nil {
		return err
	}
	return c.send(m)
}

// refusal returns the error for a status of a server that is not success, or nil.
func refusal(s *dhcpv6.OptStatusCode) error {
	if s == nil || s.StatusCode == iana.StatusSuccess {
		return nil
	}
	text := s.StatusCode.String()
	if s.StatusMessage != "" {
		text += fmt.Sprintf(": %.80q", s.StatusMessage)
	}
	switch s.StatusCode {
	case iana.StatusNoBinding:
		return fmt.Errorf("%w (%s)", errNoBinding, text)
	case iana.StatusNoAddrsAvail:
		return fmt.Errorf("%w: it has no address for the container (%s)", ErrRefused, text)
	case iana.StatusNotOnLink:
		return fmt.Errorf("%w: the address is of another link (%s)", ErrRefused, text)
	}
	return fmt.Errorf("fails to give an address (%s)", text) // for now
}
