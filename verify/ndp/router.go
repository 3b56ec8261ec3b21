package ndp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	wire "github.com/mdlayher/ndp"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// Router is the content of one router solicitation or advertisement, by which a host learns which
// routers a link has.
type Router struct {
	Source ether.MAC  // of the Ethernet header
	From   netip.Addr // in an advertisement, the router's link-local address
	Advert bool       // an advertisement (RA), otherwise a solicitation (RS), which can be from ::
	// Lifetime is how long the sender of an advertisement may be used as a default router, in whole
	// seconds up to 18 hours; 0: not at all.
	Lifetime time.Duration
	Managed  bool // the advertisement says that servers give addresses (DHCPv6, RFC 4861 §4.2)
}

// Routers is the multicast group of all routers of a link.
var Routers = netip.IPv6LinkLocalAllRouters()

// Frame returns a solicitation to all routers, or an advertisement to all nodes, as an Ethernet
// frame. From must be an IPv6 address. From ::, it names no MAC (RFC 4861 §4.1).
func (r Router) Frame() ([]byte, error) {
	m := Message{Source: r.Source, From: r.From, To: Routers}
	var option []wire.Option
	if !r.From.IsUnspecified() {
		option = []wire.Option{&wire.LinkLayerAddress{Direction: wire.Source, Addr: r.Source.Hardware()}}
	}
	var body wire.Message = &wire.RouterSolicitation{Options: option}
	if r.Advert {
		m.To, body = allNodes, &wire.RouterAdvertisement{
			RouterLifetime: r.Lifetime, ManagedConfiguration: r.Managed, Options: option,
		}
	}
	m.Destination = GroupMAC(m.To)
	return m.frame(body)
}

// ParseRouter reads an Ethernet frame, which any station can have sent. It returns an error if the
// frame is not a router solicitation or advertisement that is valid by RFC 4861 §6.1.1 or §6.1.2.
func ParseRouter(frame []byte) (Router, error) {
	r, _, err := ParseRouterOptions(frame)
	return r, err
}

// ParseRouterOptions is ParseRouter, and also returns the options of an advertisement.
func ParseRouterOptions(frame []byte) (Router, []wire.Option, error) {
	m, body, err := open(frame)
	if err != nil {
		return Router{}, nil, err
	}
	var options []wire.Option
	r := Router{Source: m.Source, From: m.From}
	switch body := body.(type) {
	case *wire.RouterSolicitation:
	case *wire.RouterAdvertisement:
		r.Advert, r.Lifetime, r.Managed, options = true, body.RouterLifetime, body.ManagedConfiguration, body.Options
	default:
		return Router{}, nil, fmt.Errorf("read ND: a %T is not a router solicitation or advertisement", body)
	}
	switch {
	case r.Advert && !r.From.IsLinkLocalUnicast():
		return Router{}, nil, fmt.Errorf("read ND: a router advertises itself from %s, want a link-local address", r.From)
	case r.From.IsMulticast() || r.From.Is4In6():
		return Router{}, nil, fmt.Errorf("read ND: source %s is not a unicast IPv6 address", r.From)
	case r.Source.IsZero():
		return Router{}, nil, errors.New("read ND: no source MAC")
	}
	return r, options, nil
}
