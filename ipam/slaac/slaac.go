// Package slaac hears router advertisements (RFC 4861 §6.2), and says why a host gets no address from
// them (RFC 4862 §5.5.3). The kernel of the container configures the addresses: this package is there
// for the words of a verdict.
package slaac

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// maxMessage is the size of the largest message that is read, in bytes.
const maxMessage = 65535

// Limits of what is kept and said of advertisements: any station on the LAN can send any number.
const (
	maxRouters  = 4
	maxPrefixes = 4  // of one router
	maxRead     = 64 // by one call of Read
)

// Listener receives the advertisements that arrive on one interface.
type Listener struct {
	conn    *ndp.Conn
	index   int
	routers []router
	more    int // advertisements of further routers
}

// router is the last advertisement of a router.
type router struct {
	addr     netip.Addr
	lifetime time.Duration
	prefixes []string       // what is wrong with each
	usable   []netip.Prefix // those that give an address
	more     int            // further prefixes
}

// Listen opens a listener on the interface with that ifindex and name, in the network namespace of the
// calling thread.
func Listen(index int, name string) (*Listener, error) {
	// Package net caches the ifindexes of names, for the whole process: it may know the name from another
	// namespace.
	zone := strconv.Itoa(index)
	c, _, err := ndp.Listen(&net.Interface{Index: index, Name: zone, MTU: maxMessage}, ndp.Unspecified)
	if err != nil {
		return nil, fmt.Errorf("listen to routers on %q: %w", name, err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	flags := ipv6.FlagInterface | ipv6.FlagHopLimit
	if err = errors.Join(c.SetICMPFilter(&filter), c.SetControlMessage(flags, true)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to routers on %q: %w", name, err), c.Close())
	}
	return &Listener{conn: c, index: index}, nil
}

// Close closes the listener.
func (l *Listener) Close() error { return l.conn.Close() }

// Solicit asks all routers to advertise themselves, from the interface's link-local address. It does
// nothing while that is not usable yet.
func (l *Listener) Solicit(mac net.HardwareAddr) error {
	err := l.conn.WriteTo(&ndp.RouterSolicitation{
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac}},
	}, nil, netip.IPv6LinkLocalAllRouters())
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("solicit routers: %w", err)
	}
	return nil
}

// Read keeps what arrives until that time. It returns earlier after maxRead messages.
func (l *Listener) Read(until time.Time) error {
	if err := l.conn.SetReadDeadline(until); err != nil {
		return err
	}
	for range maxRead {
		m, cm, from, err := l.conn.ReadFrom()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("listen to routers: %w", err)
		}
		// As the kernel does (RFC 4861 §6.1.2). A raw socket receives from all interfaces.
		ra, is := m.(*ndp.RouterAdvertisement)
		if from = from.WithZone(""); is && cm != nil && cm.IfIndex == l.index && cm.HopLimit == ndp.HopLimit &&
			from.IsLinkLocalUnicast() {
			l.keep(from, ra)
		}
	}
	return nil
}

// keep keeps an advertisement, in the place of the router's last one.
func (l *Listener) keep(from netip.Addr, ra *ndp.RouterAdvertisement) {
	r := router{addr: from, lifetime: ra.RouterLifetime}
	for _, o := range ra.Options {
		p, is := o.(*ndp.PrefixInformation)
		if !is {
			continue
		}
		if len(r.prefixes) == maxPrefixes {
			r.more++
			continue
		}
		why := unusable(p)
		if why == "" {
			r.usable = append(r.usable, netip.PrefixFrom(p.Prefix, int(p.PrefixLength)))
		}
		r.prefixes = append(r.prefixes, strings.TrimSpace(fmt.Sprintf("%s/%d %s", p.Prefix, p.PrefixLength, why)))
	}
	for i := range l.routers {
		if l.routers[i].addr == from {
			l.routers[i] = r
			return
		}
	}
	if len(l.routers) == maxRouters {
		l.more++
		return
	}
	l.routers = append(l.routers, r)
}

// unusable returns why the kernel configures no address from a prefix, "" if it does (addrconf.c,
// addrconf_prefix_rcv).
func unusable(p *ndp.PrefixInformation) string {
	switch {
	case !p.AutonomousAddressConfiguration:
		return "without the autonomous flag"
	case p.Prefix.IsLinkLocalUnicast() || p.Prefix.IsMulticast():
		return "is no prefix of addresses"
	case p.PrefixLength != 64:
		return "is not of 64 bits"
	case p.ValidLifetime == 0:
		return "with a valid lifetime of 0"
	case p.PreferredLifetime > p.ValidLifetime:
		return "is preferred for longer than it is valid"
	}
	return ""
}

// NoDefault reports whether routers were heard, and none of them is a default router.
func (l *Listener) NoDefault() bool {
	for _, r := range l.routers {
		if r.lifetime > 0 {
			return false
		}
	}
	return len(l.routers) > 0
}

// Addrs returns the addresses that the kernel configures from what was heard, for an interface with a MAC
// and its link-local address.
func (l *Listener) Addrs(linkLocal netip.Addr) (addrs []netip.Addr) {
	host := linkLocal.As16()
	for _, r := range l.routers {
		for _, p := range r.usable {
			a := p.Addr().As16()
			copy(a[8:], host[8:])
			addrs = append(addrs, netip.AddrFrom16(a))
		}
	}
	return addrs
}

// Heard returns what routers have advertised, in one line, or "" if none advertised itself.
func (l *Listener) Heard() string {
	var words []string
	for _, r := range l.routers {
		words = append(words, r.String())
	}
	if l.more > 0 {
		words = append(words, fmt.Sprintf("%d advertisements of further routers", l.more))
	}
	return strings.Join(words, "; ")
}

func (r router) String() string {
	is := "router " + r.addr.String()
	if r.lifetime == 0 {
		is += ", which is no default router (lifetime 0),"
	}
	prefixes := strings.Join(r.prefixes, ", ")
	if r.more > 0 {
		prefixes += fmt.Sprintf(" and %d more", r.more)
	}
	switch {
	case len(r.prefixes) == 0:
		return is + " advertises no prefix"
	case len(r.usable) > 0:
		return is + " advertises " + prefixes
	}
	return is + " advertises no prefix for addresses: " + prefixes
}
