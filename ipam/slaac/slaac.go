// Package slaac hears router advertisements (RFC 4861 §6.2), and says why a host gets no address from
// them (RFC 4862 §5.5.3). The kernel of the container configures the addresses: this package is there
// for the words of a verdict, and for name servers (RFC 8106).
package slaac

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	wire "github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// Limits of what is kept and said of advertisements: any station on the LAN can send any number.
const (
	maxRouters  = 4
	maxPrefixes = 4  // of one router
	maxOnLink   = 16 // of one router, without words
	maxRead     = 64 // by one call of Read
)

// Listener receives the advertisements that arrive on one interface.
type Listener struct {
	conn    *packet.Conn
	buf     []byte
	routers []router
	more    int // advertisements of further routers
	name    string
}

// router is the last advertisement of a router.
type router struct {
	addr     netip.Addr
	lifetime time.Duration
	prefixes []string       // what is wrong with each
	usable   []netip.Prefix // those that give an address
	onLink   []netip.Prefix // those with hosts on the link
	managed  bool
	more     int // further prefixes
	resolver ipam.Resolver
}

// Listen opens a listener on the interface with that ifindex and name, in the network namespace of the
// calling thread. All other methods may be called on any thread.
//
// It is a packet socket, because the service may use no socket with an IP address.
func Listen(index int, name string) (*Listener, error) {
	f, err := filter()
	if err != nil {
		return nil, err
	}
	c, err := packet.Listen(&net.Interface{Index: index}, packet.Raw, unix.ETH_P_IPV6, &packet.Config{Filter: f})
	if err != nil {
		return nil, fmt.Errorf("listen to routers on %q: %w", name, err)
	}
	return &Listener{conn: c, buf: make([]byte, 1<<16), name: name}, nil
}

// filter returns the program of a packet socket for IPv6 that receives the advertisements that the kernel
// receives, too: a macvlan on a trunk sees the frames of VLANs for which the host has no interface, as
// those for another host. An advertisement behind extension headers is not heard: routers send none.
func filter() ([]bpf.RawInstruction, error) {
	const ipv6 = 14 // offset of the header
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 5}, // for others, or outgoing
		bpf.LoadAbsolute{Off: ipv6 + 6, Size: 1},                                       // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ipv6 + 40, Size: 1}, // type
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: routerAdvertisement, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}

// routerAdvertisement is the type of the message in ICMPv6.
const routerAdvertisement = 134

// Close closes the listener. The kernel waits for RCU when a packet socket closes (packet_release in
// net/packet/af_packet.c), 10 to 20 ms on an idle machine: the caller does not wait.
func (l *Listener) Close() {
	go func() { _ = l.conn.Close() }() // it holds nothing that could be lost
}

// Solicit asks all routers to advertise themselves, with a MAC and an address of the interface, or ::.
func (l *Listener) Solicit(mac ether.MAC, from netip.Addr) error {
	frame, err := ndp.Router{Source: mac, From: from}.Frame()
	if err != nil {
		return err
	}
	_, err = l.conn.WriteTo(frame, &packet.Addr{HardwareAddr: ndp.GroupMAC(ndp.Routers).Hardware()})
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("solicit routers: %w", err)
	}
	return nil // a frame that this host drops is one without an answer: evidence says why
}

// Read keeps what arrives until that time. It returns earlier after maxRead messages.
func (l *Listener) Read(until time.Time) error {
	if err := l.conn.SetReadDeadline(until); err != nil {
		return err
	}
	for range maxRead {
		n, _, err := l.conn.ReadFrom(l.buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, unix.ENETDOWN): // reported once when the link goes down
			continue
		case err != nil:
			return fmt.Errorf("listen to routers: %w", err)
		}
		// Any station can send it.
		if r, options, err := ndp.ParseRouterOptions(l.buf[:n]); err == nil && r.Advert {
			l.keep(r, options)
		}
	}
	return nil
}

// keep keeps an advertisement, in the place of the router's last one.
func (l *Listener) keep(ra ndp.Router, options []wire.Option) {
	r := router{addr: ra.From, lifetime: ra.Lifetime, managed: ra.Managed}
	for _, o := range options {
		p, is := o.(*wire.PrefixInformation)
		if !is {
			l.keepNames(&r.resolver, o)
			continue
		}
		if on := netip.PrefixFrom(p.Prefix, int(p.PrefixLength)); isOnLink(p) && len(r.onLink) < maxOnLink {
			r.onLink = append(r.onLink, on.Masked())
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
		if l.routers[i].addr == r.addr {
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

// keepNames keeps the name servers or search domains of an option (RFC 8106). A lifetime of 0 ends their use.
// A link-local address is used on the interface only.
func (l *Listener) keepNames(r *ipam.Resolver, o wire.Option) {
	switch o := o.(type) {
	case *wire.RecursiveDNSServer:
		for _, a := range o.Servers {
			switch {
			case o.Lifetime == 0 || !a.Is6() || a.Is4In6():
			case a.IsLinkLocalUnicast():
				r.AddServer(a.WithZone(l.name))
			case a.IsGlobalUnicast():
				r.AddServer(a)
			}
		}
	case *wire.DNSSearchList:
		for _, d := range o.DomainNames {
			if o.Lifetime > 0 {
				r.AddDomain(d)
			}
		}
	}
}

// Resolver returns the name servers and search domains that routers advertise.
func (l *Listener) Resolver() (all ipam.Resolver) {
	for _, r := range l.routers {
		all.Add(r.resolver)
	}
	return all
}

// unusable returns why the kernel configures no address from a prefix, "" if it does (addrconf.c,
// addrconf_prefix_rcv).
func unusable(p *wire.PrefixInformation) string {
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

// isOnLink reports whether the addresses of a prefix are those of stations on the link (RFC 4861 §6.3.4).
func isOnLink(p *wire.PrefixInformation) bool {
	return p.OnLink && p.ValidLifetime > 0 && p.PrefixLength > 0 && p.PrefixLength <= 128 && p.Prefix.Is6() &&
		!p.Prefix.IsLinkLocalUnicast() && !p.Prefix.IsMulticast()
}

// OnLink returns the longest prefix on the link that has the address; the zero Prefix if routers have
// advertised none.
func (l *Listener) OnLink(a netip.Addr) (longest netip.Prefix) {
	for _, r := range l.routers {
		for _, p := range r.onLink {
			if p.Contains(a) && p.Bits() > longest.Bits() {
				longest = p
			}
		}
	}
	return longest
}

// Managed returns what routers say of DHCPv6 servers, in one line, or "" if none advertised itself.
func (l *Listener) Managed() string {
	var words []string
	for _, r := range l.routers {
		names := "does not name"
		if r.managed {
			names = "names"
		}
		words = append(words, fmt.Sprintf("router %s %s such servers by its M flag", r.addr, names))
	}
	return strings.Join(words, "; ")
}

// Giver returns a router that was heard, if possible one that gives an address; the zero Addr if none was.
func (l *Listener) Giver() netip.Addr {
	for _, r := range l.routers {
		if len(r.usable) > 0 {
			return r.addr
		}
	}
	if len(l.routers) > 0 {
		return l.routers[0].addr
	}
	return netip.Addr{}
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
