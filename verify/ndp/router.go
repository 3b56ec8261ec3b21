package ndp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	wire "github.com/mdlayher/ndp"

	"github.com/lanyard-net/lanyard/verify"
)

// Router is what one frame between a host and the routers of its link says: which
// of them there are.
type Router struct {
	Source verify.MAC // of the Ethernet header
	From   netip.Addr // an advertisement's is the router's link-local address
	Advert bool       // an advertisement (RA), else a solicitation (RS)
	// Lifetime is how long an advertisement says that its sender may be used as a
	// default router, in whole seconds up to 18 hours; 0: not at all.
	Lifetime time.Duration
}

// Routers is the group that all routers of a link are in.
var Routers = netip.IPv6LinkLocalAllRouters()

// Frame gives a solicitation to all routers, or an advertisement to all nodes.
func (r Router) Frame() ([]byte, error) {
	m := Message{Source: r.Source, From: r.From, To: Routers}
	option := []wire.Option{&wire.LinkLayerAddress{Direction: wire.Source, Addr: r.Source.Hardware()}}
	var body wire.Message = &wire.RouterSolicitation{Options: option}
	if r.Advert {
		m.To, body = allNodes, &wire.RouterAdvertisement{RouterLifetime: r.Lifetime, Options: option}
	}
	m.Destination = GroupMAC(m.To)
	return m.frame(body)
}

// ParseRouter reads an Ethernet frame, which anybody can have sent: what is not a
// solicitation or an advertisement that RFC 4861 §6.1.1 and §6.1.2 call valid is an
// error.
func ParseRouter(frame []byte) (Router, error) {
	m, body, err := open(frame)
	if err != nil {
		return Router{}, err
	}
	r := Router{Source: m.Source, From: m.From}
	switch body := body.(type) {
	case *wire.RouterSolicitation:
	case *wire.RouterAdvertisement:
		r.Advert, r.Lifetime = true, body.RouterLifetime
	default:
		return Router{}, fmt.Errorf("read ND: a %T is no solicitation or advertisement of a router", body)
	}
	switch {
	case r.Advert && !r.From.IsLinkLocalUnicast():
		return Router{}, fmt.Errorf("read ND: a router advertises itself from %s, want a link-local address", r.From)
	case r.From.IsMulticast() || r.From.Is4In6():
		return Router{}, fmt.Errorf("read ND: source %s is not one station's", r.From)
	case r.Source.IsZero():
		return Router{}, errors.New("read ND: no source MAC")
	}
	return r, nil
}
