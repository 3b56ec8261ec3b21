package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/verify"
)

// dhcpWait is how long an attach waits for a DHCP server on a network without a deadline of its own.
// Some servers ping an address for three seconds before they offer it.
const dhcpWait = 6 * time.Second

// errNotRenewed is returned if no process would renew the lease of a container.
var errNotRenewed = errors.New("its addresses come from DHCP servers, and only the service renews them: " +
	"start it with \"systemctl start lanyard\" or \"lanyard serve\", and then the container again")

// errOutside is the reason of a lease that is not in the network's subnet.
var errOutside = errors.New("the network's subnet is")

// checkRenewed returns an error if the network's addresses need the service, and it does not run.
func (t *attempt) checkRenewed() error {
	if t.def.IPAM == network.IPAMDHCP && !t.renewing {
		return errNotRenewed
	}
	return nil
}

// acquireLease gets an address from a DHCP server, for an interface that exists, and changes record,
// guard and datapath to it. It does nothing on a network with other addresses, or if the attachment
// has its lease.
func (t *attempt) acquireLease(ctx context.Context) error {
	if t.def.IPAM != network.IPAMDHCP || t.rec.DHCP != nil {
		return nil
	}
	var err error
	if t.hostAddrs, err = t.Host.HostAddrs(); err != nil {
		return err
	}
	l, err := t.askServers(ctx)
	if err != nil {
		return err
	}
	t.reached("dhcp")
	return t.take(ctx, l)
}

// askServers returns the lease that a DHCP server has given to the interface.
func (t *attempt) askServers(ctx context.Context) (l dhcp.Lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(time.Duration(t.def.Deadline), dhcpWait))
	defer cancel()
	r := dhcp.Request{Given: givenByNetwork(t.def), Usable: t.usable, Accept: func(offer dhcp.Lease) error {
		return t.recordOffer(ctx, offer)
	}}
	if len(t.want.Addrs) > 0 {
		r.Addr = t.want.Addrs[0]
	}
	asked, before := verify.Now(), t.counters()
	err = t.withServers(t.ns, &t.rec, func(c dhcp.Conn) error {
		l, err = c.Acquire(ctx, r)
		return err
	})
	var none *dhcp.NoLease
	if !errors.As(err, &none) || len(none.Refused) > 0 && !errors.Is(none, errOutside) {
		return l, err
	}
	return l, t.refuseWithoutLease(none, asked, before)
}

// notConfigured is why a container does not have a lease that its server may have given already.
const notConfigured = "it is not configured yet"

// recordOffer writes an offer to the record before it is accepted: if this process is killed, the sweep
// or the next service gives the lease back.
func (t *attempt) recordOffer(ctx context.Context, offer dhcp.Lease) error {
	row := t.rec
	if row.DHCP = &offer; t.replacing {
		offer.Lost = notConfigured
	}
	return t.DB.Update(ctx, func(tx record.Tx) error { return record.Replace(tx, &row) })
}

// counters returns what the trunk has counted for the endpoint, or nil if it is not watched.
func (v *verification) counters() *verify.Counters {
	if v.unwatched != "" {
		return nil
	}
	e, err := v.Datapath.Evidence(v.rec.Endpoint)
	if err != nil {
		v.unwatched = err.Error()
		return nil
	}
	return &e.Counters
}

// seenSince returns what the trunk has counted for the endpoint since before, and its evidence; nil if
// it is not watched.
func (v *verification) seenSince(before *verify.Counters) (*verify.Counters, *verify.Evidence, error) {
	if before == nil || v.unwatched != "" {
		return nil, nil, nil
	}
	e, err := v.Datapath.Evidence(v.rec.Endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("read evidence from trunk %q: %w", v.parent.Trunk, err)
	}
	return &verify.Counters{
		OutFrames: e.Counters.OutFrames - before.OutFrames, OutWrong: e.Counters.OutWrong - before.OutWrong,
		InFrames: e.Counters.InFrames - before.InFrames, InWrong: e.Counters.InWrong - before.InWrong,
	}, &e, nil
}

// refuseWithoutLease returns the *Refusal of a start without a lease. asked is the time of the first
// request, and before what the trunk had counted then.
func (t *attempt) refuseWithoutLease(none *dhcp.NoLease, asked verify.Instant, before *verify.Counters) error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout) // the attach's deadline is over
	defer cancel()
	state, err := t.refreshHostState(ctx)
	if err != nil {
		return err
	}
	facts := verify.Facts{
		Parent: t.parent.Name, Trunk: t.parent.Trunk, Tags: t.rec.Endpoint.Tags, MAC: t.rec.MAC, Asked: asked,
		Now: verify.Now(), Down: state.down, Local: func(mac ether.MAC) bool { return t.isLocal(state, mac) },
	}
	n := verify.NoLease{Sent: none.Sent, Waited: none.Waited}
	if len(none.Refused) > 0 {
		n.Outside = none.Error()
	}
	refusal := &hook.Refusal{}
	seen, e, err := t.seenSince(before)
	if err != nil {
		return err
	}
	if n.Seen = seen; seen != nil {
		refusal.Evidence, facts.VLANs = e, e.VLANs
	}
	facts.Unwatched = t.unwatched
	refusal.Verdict = verify.JudgeLease(facts, n)
	return refusal
}

// withServers runs f with a connection to the servers from the attachment's link on the LAN.
func (l *Local) withServers(ns *link.Netns, a *hook.Attachment, f func(dhcp.Conn) error) error {
	var c dhcp.Conn
	err := driver.Of(l.Parts, a).OnLAN(ns, a, func(index int) (err error) {
		c, err = dhcp.Open(index, clientOf(a))
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// clientOf returns what identifies an attachment to servers. A caller without privilege chooses the
// container's name, and many servers add that to the LAN's DNS: so servers are not told it.
func clientOf(a *hook.Attachment) dhcp.Client {
	c := dhcp.Client{MAC: a.MAC}
	switch {
	case a.Owner != 0:
	case a.Pod.Name != "":
		c.Hostname = dhcp.Hostname(a.Pod.Name)
	case len(a.Containers) > 0:
		c.Hostname = dhcp.Hostname(a.Containers[0].Name)
	}
	return c
}

// givenByNetwork returns what servers need not send, because the definition has it.
func givenByNetwork(def *network.Definition) (g dhcp.Given) {
	g.OnLink = def.OnLink
	if len(def.Subnets) > 0 {
		g.Subnet = def.Subnets[0].Subnet
	}
	return g
}

// usable returns why the container cannot have a lease, or nil.
func (t *attempt) usable(l dhcp.Lease) error {
	a := l.Addr.Addr()
	if len(t.want.Addrs) > 0 && t.want.Addrs[0] != a {
		return fmt.Errorf("offers address %s instead of the requested %s: request another address, or none", a,
			t.want.Addrs[0])
	}
	for _, s := range t.def.Subnets {
		if !s.Subnet.Contains(a) {
			return fmt.Errorf("offers address %s, but %w %s", a, errOutside, s.Subnet)
		}
		if s.Gateway == a {
			return fmt.Errorf("offers address %s, which is the network's gateway", a)
		}
	}
	if t.def.SLAAC() && t.rec.MTURequested == 0 && l.MTU != 0 && l.MTU < minMTU6 {
		return fmt.Errorf("offers MTU %d, but IPv6 needs at least %d: correct its option 26, or use a network with --mtu",
			l.MTU, minMTU6)
	}
	reserved := map[netip.Addr]string{}
	if err := t.reserveHosts(reserved, l.Addr.Masked(), t.hostAddrs); err != nil {
		return err
	}
	if why := reserved[a]; why != "" {
		return fmt.Errorf("offers address %s, which is the %s", a, why)
	}
	return nil
}

// take makes a lease that of the attachment: it is recorded before it is used. The new ifindexes of a
// guarded interface are recorded again, because [Local.RenewLeases] asks through them.
func (t *attempt) take(ctx context.Context, l dhcp.Lease) error {
	if t.replacing {
		l.Lost = notConfigured // until commit: the service may be killed before
	}
	t.rec.DHCP, t.rec.Addrs, t.rec.Gateways = &l, []netip.Prefix{l.Addr}, nil
	s := subnetOfLease(t.def, l)
	if t.subnets = []network.Subnet{s}; s.Gateway.IsValid() && !t.def.Internal {
		t.rec.Gateways = []netip.Addr{s.Gateway}
	}
	if t.rec.MTURequested == 0 && l.MTU != 0 {
		t.rec.MTU = min(l.MTU, t.parent.MTU)
	}
	if err := t.DB.Hold(ctx, func() error {
		lease := ipam.Lease{Addr: l.Addr.Addr(), Owner: ownerOf(t.rec), Name: t.leaseName()}
		err := t.Leases.Own.Release(ctx, t.rec.Pools[0], lease.Owner, 0) // an earlier lease, if it had one
		if err == nil {
			err = t.Leases.Own.Claim(ctx, t.rec.Pools[0], lease)
		}
		if errors.Is(err, ipam.ErrTaken) {
			err = fmt.Errorf("DHCP server %s (%s) has given an address twice: %w", l.Server, l.ServerMAC, err)
		}
		if err != nil {
			return err
		}
		if err = t.recordEndpoint(ctx); err != nil { // a detach may have removed the record by now
			err = errors.Join(err, t.Leases.Own.Release(ctx, t.rec.Pools[0], lease.Owner, 0))
		}
		return err
	}); err != nil {
		return err
	}
	if err := t.rec.WriteNames(t.Names); err != nil {
		return err
	}
	if err := t.expectFrames(ctx); err != nil {
		return err
	}
	before := t.rec.Index
	if err := t.readdress(ctx); err != nil || t.rec.Index == before {
		return err
	}
	return t.DB.Update(ctx, func(tx record.Tx) error { return record.Replace(tx, &t.rec) })
}

// subnetOfLease returns the subnet of a lease, with the gateway of the definition or of the server.
func subnetOfLease(def *network.Definition, l dhcp.Lease) network.Subnet {
	s := network.Subnet{Subnet: l.Addr.Masked(), Gateway: l.Gateway}
	if len(def.Subnets) > 0 && def.Subnets[0].Gateway.IsValid() {
		s.Gateway = def.Subnets[0].Gateway
	}
	return s
}

// declineServers declines the lease, because another station has its address, and gets another one.
func (t *attempt) declineServers(ctx context.Context, a netip.Addr) error {
	if err := t.giveUpLease(ctx, a); err != nil {
		return err
	}
	if err := t.acquireLease(ctx); err != nil {
		return fmt.Errorf("address %s is in use by another station on the LAN: %w", a, err)
	}
	return nil
}

// giveUpLease tells the server, and keeps in the database, that another station has the address.
func (t *attempt) giveUpLease(ctx context.Context, a netip.Addr) error {
	l := t.rec.DHCP
	if err := t.withServers(t.ns, &t.rec, func(c dhcp.Conn) error { return c.Decline(*l) }); err != nil {
		return err
	}
	err := t.WithStore(ctx, "", func(in ipam.Store) error { return t.declineLease(ctx, in, a) })
	t.rec.DHCP = nil
	return err
}

// releaseServers gives the lease of an attachment back, from the parent: its interface may be gone.
// There is no answer to wait for. If the message is lost, the lease ends by itself.
func (l *Local) releaseServers(a *hook.Attachment) {
	if a.DHCP == nil || a.DHCP.ServerMAC.IsZero() || a.DHCP.Returned || a.ParentIdx == 0 {
		return
	}
	err := l.Host.Do(func() error {
		c, err := dhcp.Open(a.ParentIdx, clientOf(a))
		if err != nil {
			return err
		}
		return errors.Join(c.Release(*a.DHCP), c.Close())
	})
	if err != nil {
		l.Log.Warn("could not release an address to its DHCP server: the server has it until the lease ends",
			"address", a.DHCP.Addr, "server", a.DHCP.Server, "ends", a.DHCP.Expires.Wall(), "err", err)
	}
}

// routesOfLease returns the routes that the DHCP server names, if the network has none of its own and
// is not internal. It leaves out halves of a default route for an interface without one.
func (t *attempt) routesOfLease() (routes []link.Route) {
	if t.rec.DHCP == nil || len(t.def.Routes) > 0 || t.def.Internal {
		return nil
	}
	for _, r := range t.rec.DHCP.Routes {
		if r.Dst.Bits() <= 1 && t.noDefault[hook.IPv4] {
			continue
		}
		onLink := t.def.OnLink && r.Via.IsValid()
		routes = append(routes, link.Route{Index: t.link.Index, Dst: r.Dst, Gateway: r.Via, OnLink: onLink})
	}
	return routes
}

// lifetime returns for how long the address is valid: until the lease ends; 0 if it does not end.
func (t *attempt) lifetime() time.Duration {
	if t.rec.DHCP == nil {
		return 0
	}
	return t.rec.DHCP.Remaining(boottime.Now())
}
