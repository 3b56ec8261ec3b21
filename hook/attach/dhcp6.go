package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/ipam/slaac"
	"github.com/lanyard-net/lanyard/verify"
)

// prefixWait is how long a lease waits for the advertisement of a router, which has the prefix of the link.
const prefixWait = time.Second

// askServers6 returns the lease that a DHCPv6 server has given to the interface, with the length of the
// prefix on the link that has its address.
func (t *attempt) askServers6(ctx context.Context) (l dhcp.Lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(time.Duration(t.def.Deadline), dhcpWait))
	defer cancel()
	routers, err := t.openRouters()
	if err != nil {
		return l, err
	}
	defer routers.Close()
	if err := t.awaitLinkLocal(ctx, routers); err != nil {
		return l, err
	}
	asked, before := verify.Now(), t.counters()
	r := dhcp.Request{Usable: t.usableHere, Accept: func(offer dhcp.Lease) error {
		return t.recordOffer(ctx, hook.IPv6, offer)
	}}
	err = t.withServers(t.ns, &t.rec, hook.IPv6, func(c dhcp.Conn) error {
		l, err = c.Acquire(ctx, r)
		return err
	})
	var none *dhcp.NoLease
	if errors.As(err, &none) && len(none.Refused) == 0 {
		if err := routers.Read(time.Now()); err != nil { // what has arrived by now
			return l, err
		}
		return l, t.refuseWithoutLease(none, routers.Managed(), asked, before)
	}
	if err != nil {
		return l, err
	}
	if p, err := t.prefixOf(ctx, routers, l.Addr.Addr()); err == nil {
		l.Addr = p
	} // else a later step fails for the same reason, and gives the lease back
	return l, nil
}

// openRouters makes the interface take router advertisements, but no addresses from them, and listens to
// them. The setting of a running container stays as it is.
func (t *attempt) openRouters() (routers *slaac.Listener, err error) {
	metric := 0
	if t.replacing == 0 {
		if metric, err = t.routersMetric(); err != nil {
			return nil, err
		}
		t.setDefault(metric != 0)
	}
	err = t.ns.Do(func() (err error) {
		if t.replacing == 0 {
			err = t.acceptRouters(metric)
		}
		if err == nil {
			routers, err = slaac.Listen(t.rec.Index, t.rec.Interface)
		}
		return err
	})
	return routers, err
}

// setDefault records whether the interface takes the routers' default route. Other copies of the record
// keep their value.
func (t *attempt) setDefault(takes bool) {
	s := *t.rec.SLAAC
	s.Default = takes
	t.rec.SLAAC = &s
}

// acceptRouters is link.AcceptRouters for the interface. It must run inside the namespace.
func (t *attempt) acceptRouters(metric int) error {
	var secret *[16]byte
	if t.def.StablePrivacy() {
		if t.rec.SLAAC.SecretName == "" {
			t.rec.SLAAC.SecretName = t.secretName()
		}
		s, err := t.DerivedSecret(t.def.Name, t.rec.SLAAC.SecretName)
		if err != nil {
			return err
		}
		secret = &s
	}
	return link.AcceptRouters(t.rec.Interface, metric, !t.rec.SLAAC.Managed, secret)
}

// awaitLinkLocal waits until the kernel has asked whether another station has the interface's link-local
// address (RFC 4862 §5.4): servers answer to it. Routers are solicited in this time.
func (t *attempt) awaitLinkLocal(ctx context.Context, routers *slaac.Listener) error {
	asks := t.solicitor(routers)
	for {
		_, local, err := t.readAutoconf()
		switch {
		case err != nil:
			return err
		case local.Duplicate:
			return fmt.Errorf("another station on the LAN has link-local address %s: choose another MAC with io.lanyard.mac",
				local.Prefix.Addr())
		case local.Prefix.IsValid() && !local.Tentative:
			return nil
		case ctx.Err() != nil:
			return t.refuseTentative(t.rec.MAC.LinkLocal())
		}
		if err := asks.listen(local); err != nil {
			return err
		}
	}
}

// refuseTentative returns the error of an interface with a link-local address that is not usable in time:
// the kernel does not ask for it while the parent has no carrier.
func (t *attempt) refuseTentative(own netip.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout) // the attach's deadline is over
	defer cancel()
	state, err := t.refreshHostState(ctx)
	switch {
	case err != nil:
		return err
	case state.down != "":
		return &hook.Refusal{Verdict: verify.Verdict{Code: verify.ParentDown, Text: state.down}}
	}
	return fmt.Errorf("link-local address %s, from which DHCPv6 servers are asked, is not usable yet: use a longer "+
		"--deadline", own)
}

// prefixOf returns an address with the length of the prefix on the link that has it. Without such a prefix
// it is 128: other stations are then reached through routers, or by the routes of later advertisements.
func (t *attempt) prefixOf(ctx context.Context, routers *slaac.Listener, a netip.Addr) (p netip.Prefix, err error) {
	if err := routers.Read(time.Now()); err != nil { // what has arrived by now
		return p, err
	}
	end, asks := time.Now().Add(prefixWait), t.solicitor(routers)
	usable := link.Addr{Prefix: netip.PrefixFrom(t.rec.MAC.LinkLocal(), 64)}
	for {
		on := routers.OnLink(a)
		if on.IsValid() || routers.Giver().IsValid() || ctx.Err() != nil || time.Now().After(end) {
			return netip.PrefixFrom(a, cmp.Or(max(on.Bits(), 0), a.BitLen())), nil
		}
		if err := asks.listen(usable); err != nil {
			return p, err
		}
	}
}

// withPrefix is prefixOf for an address that a server has given in place of another one.
func (t *attempt) withPrefix(ctx context.Context, a netip.Prefix) (p netip.Prefix, err error) {
	routers, err := t.openRouters()
	if err != nil {
		return p, err
	}
	defer routers.Close()
	return t.prefixOf(ctx, routers, a.Addr())
}
