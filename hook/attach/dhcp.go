package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
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

// acquireLeases gets an address from a DHCP server in each family that the network has them in. An
// attachment that is made again and had lost one of its addresses goes on with the other.
func (t *attempt) acquireLeases(ctx context.Context) error {
	for _, f := range hook.Families {
		err := t.acquireLease(ctx, f)
		lost := t.lost[f]
		if err != nil && lost != nil && len(t.rec.Addrs) > 0 && t.rec.ServerLease(f) == nil {
			t.Log.With(t.rec.LogAttrs()...).Warn("no other lease for the one that was lost", "lost", lost.Addr, "err", err)
			t.rec.SetServerLease(f, lost) // the service asks again
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// acquireLease gets an address from a DHCP server, for an interface that exists, and changes record,
// guard and datapath to it. It does nothing on a network with other addresses, or if the attachment
// has its lease.
func (t *attempt) acquireLease(ctx context.Context, f hook.Family) error {
	if !t.def.FromServers(int(f)) || t.rec.ServerLease(f) != nil {
		return nil
	}
	var err error
	if t.hostAddrs, err = t.Host.HostAddrs(); err != nil {
		return err
	}
	l, err := t.askServers(ctx, f)
	if err != nil {
		return err
	}
	t.reached("dhcp")
	return t.take(ctx, f, l)
}

// askServers returns the lease that a DHCP server has given to the interface.
func (t *attempt) askServers(ctx context.Context, f hook.Family) (l dhcp.Lease, err error) {
	if f == hook.IPv6 {
		return t.askServers6(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(time.Duration(t.def.Deadline), dhcpWait))
	defer cancel()
	r := dhcp.Request{Given: givenByNetwork(t.def), Usable: t.usable, Accept: func(offer dhcp.Lease) error {
		return t.recordOffer(ctx, hook.IPv4, offer)
	}}
	r.Addr = t.requested(hook.IPv4)
	asked, before := verify.Now(), t.counters()
	err = t.withServers(t.ns, &t.rec, hook.IPv4, func(c dhcp.Conn) error {
		l, err = c.Acquire(ctx, r)
		return err
	})
	var none *dhcp.NoLease
	if !errors.As(err, &none) || len(none.Refused) > 0 && !errors.Is(none, errOutside) {
		return l, err
	}
	return l, t.refuseWithoutLease(none, "", asked, before)
}

// notConfigured is why a container does not have a lease that its server may have given already.
const notConfigured = "it is not configured yet"

// recordOffer writes an offer to the record before it is accepted: if this process is killed, the sweep
// or the next service gives the lease back.
func (t *attempt) recordOffer(ctx context.Context, f hook.Family, offer dhcp.Lease) error {
	row := t.rec
	if row.SetServerLease(f, &offer); t.replacing != 0 {
		offer.Lost = notConfigured
	}
	return t.DB.Update(ctx, func(tx record.Tx) error { return t.replaceRow(tx, &row) })
}

// refuseWithoutLease returns the *Refusal of a start without a lease. routers is what they say of servers,
// asked the time of the first request, and before what the trunk had counted then.
func (t *attempt) refuseWithoutLease(
	none *dhcp.NoLease, routers string, asked verify.Instant, before *verify.Counters,
) error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout) // the attach's deadline is over
	defer cancel()
	state, err := t.refreshHostState(ctx)
	if err != nil {
		return err
	}
	facts := verify.Facts{
		Parent: t.parent.Name, Trunk: t.parent.Trunk, Tags: t.rec.Endpoint.Tags, MAC: t.rec.MAC, Asked: asked,
		Now: verify.Now(), Down: state.down, Local: func(mac ether.MAC) bool { return t.isLocal(state, mac) },
		Port: func() string { return t.SwitchPort(ctx, t.parent) },
	}
	n := verify.NoLease{Protocol: string(none.Protocol), Routers: routers, Sent: none.Sent, Waited: none.Waited}
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

// withServers runs do with a connection to the servers of a family from the attachment's link on the LAN.
func (l *Local) withServers(ns *link.Netns, a *hook.Attachment, f hook.Family, do func(dhcp.Conn) error) error {
	var c dhcp.Conn
	err := driver.Of(l.Parts, a).OnLAN(ns, a, func(index int) (err error) {
		c, err = openConn(f, index, clientOf(a))
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// openConn opens a connection to the servers of a family, as dhcp.Open does.
func openConn(f hook.Family, index int, c dhcp.Client) (dhcp.Conn, error) {
	if f == hook.IPv6 {
		return dhcp.Open6(index, c)
	}
	return dhcp.Open(index, c)
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
	if want := t.requested(hook.IPv4); want.IsValid() && want != a {
		return fmt.Errorf("offers address %s instead of the requested %s: request another address, or none", a, want)
	}
	for _, s := range t.def.Subnets {
		if !s.Subnet.Contains(a) {
			return fmt.Errorf("offers address %s, but %w %s", a, errOutside, s.Subnet)
		}
		if s.Gateway == a {
			return fmt.Errorf("offers address %s, which is the network's gateway", a)
		}
	}
	if t.def.TakesRouters() && t.rec.MTURequested == 0 && l.MTU != 0 && l.MTU < minMTU6 {
		return fmt.Errorf("offers MTU %d, but IPv6 needs at least %d: correct its option 26, or use a network with --mtu",
			l.MTU, minMTU6)
	}
	return t.usableHere(l)
}

// usableHere returns an error for a lease of an address of this host.
func (t *attempt) usableHere(l dhcp.Lease) error {
	a, reserved := l.Addr.Addr(), map[netip.Addr]string{}
	if err := t.reserveHosts(reserved, l.Addr.Masked(), t.hostAddrs); err != nil {
		return err
	}
	if why := reserved[a]; why != "" {
		return fmt.Errorf("offers address %s, which is the %s", a, why)
	}
	return nil
}

// requested returns the address of a family that the container requests, or the zero Addr.
func (t *attempt) requested(f hook.Family) netip.Addr {
	for _, a := range t.want.Addrs {
		if hook.FamilyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// take makes a lease that of the attachment: it is recorded before it is used.
func (t *attempt) take(ctx context.Context, f hook.Family, l dhcp.Lease) error {
	if t.replacing != 0 {
		l.Lost = notConfigured // until commit: the service may be killed before
	}
	t.rec.SetServerLease(f, &l)
	t.rec.SetServerAddr(f, l.Addr)
	if f == hook.IPv4 {
		t.takeSubnet(l)
	}
	if err := t.claimLease(ctx, f, l); err != nil {
		return err
	}
	if err := t.rec.WriteNames(t.Names); err != nil {
		return err
	}
	if err := t.expectFrames(ctx); err != nil {
		return err
	}
	return t.readdress(ctx)
}

// takeSubnet sets what a lease for IPv4 brings besides its address.
func (t *attempt) takeSubnet(l dhcp.Lease) {
	t.rec.Gateways = nil
	s := subnetOfLease(t.def, l)
	if t.subnets = []network.Subnet{s}; s.Gateway.IsValid() && !t.def.Internal {
		t.rec.Gateways = []netip.Addr{s.Gateway}
	}
	// Below the least MTU of IPv6, the kernel turns that off. A first lease is refused for it: see usable.
	if t.rec.MTURequested == 0 && l.MTU != 0 && (!t.def.TakesRouters() || l.MTU >= minMTU6) {
		t.rec.MTU = min(l.MTU, t.parent.MTU)
	}
}

// claimLease claims the address of a server's lease in the pool of the network, and writes the record.
func (t *attempt) claimLease(ctx context.Context, f hook.Family, l dhcp.Lease) error {
	pool := parts.ServerPool(t.def, int(f))
	if !slices.Contains(t.rec.Pools, pool) { // of a rebuilt record
		t.rec.Pools = append(slices.Clone(t.rec.Pools), pool)
	}
	return t.DB.Hold(ctx, func() error {
		if t.replacing != 0 {
			if err := t.whileAttached(ctx, &t.rec, t.checkSame); err != nil {
				return err
			}
		}
		lease := ipam.Lease{Addr: l.Addr.Addr(), Owner: ownerOf(t.rec), Name: t.leaseName()}
		err := t.Leases.Own.Release(ctx, pool, lease.Owner, 0) // an earlier lease, if it had one
		if err == nil {
			err = t.Leases.Own.Claim(ctx, pool, lease)
		}
		if errors.Is(err, ipam.ErrTaken) {
			err = fmt.Errorf("DHCP server %s (%s) has given an address twice: %w", l.Server, l.ServerMAC, err)
		}
		if err != nil {
			return err
		}
		if err = t.recordEndpoint(ctx); err != nil { // a detach may have removed the record by now
			err = errors.Join(err, t.Leases.Own.Release(ctx, pool, lease.Owner, 0))
		}
		return err
	})
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
	if err := t.acquireLease(ctx, hook.FamilyOf(a)); err != nil {
		return fmt.Errorf("address %s is in use by another station on the LAN: %w", a, err)
	}
	return nil
}

// giveUpLease tells the server, and keeps in the database, that another station has the address.
func (t *attempt) giveUpLease(ctx context.Context, a netip.Addr) error {
	f := hook.FamilyOf(a)
	l := t.rec.ServerLease(f)
	if err := t.withServers(t.ns, &t.rec, f, func(c dhcp.Conn) error { return c.Decline(*l) }); err != nil {
		return err
	}
	err := t.WithStore(ctx, "", func(in ipam.Store) error {
		return in.Decline(ctx, parts.ServerPool(t.def, int(f)), a, ownerOf(t.rec), declineTime)
	})
	t.rec.SetServerLease(f, nil)
	return err
}

// giveBackAll is giveBack for both families.
func (l *Local) giveBackAll(ctx context.Context, a *hook.Attachment, quarantine time.Duration) (err error) {
	for _, f := range hook.Families {
		if a.ServerLease(f) != nil {
			err = errors.Join(err, l.giveBack(ctx, a, f, quarantine))
		}
	}
	return err
}

// giveBack ends the lease of an attachment for one family: first in the network's pool, and then at the
// server, which may give the address to another container at once.
func (l *Local) giveBack(ctx context.Context, a *hook.Attachment, f hook.Family, quarantine time.Duration) error {
	pool := parts.ServerPool(&network.Definition{Name: a.Network, ID: a.Generation}, int(f))
	if err := l.WithStore(ctx, "", func(in ipam.Store) error {
		return in.Release(ctx, pool, ownerOf(*a), quarantine)
	}); err != nil {
		return err
	}
	l.releaseServer(a, f)
	return nil
}

// releaseServer gives the lease of an attachment for one family back, from the parent: its interface may
// be gone. It waits for no answer. If the message is lost, the lease ends by itself.
func (l *Local) releaseServer(a *hook.Attachment, f hook.Family) {
	lease := a.ServerLease(f)
	if lease == nil || lease.ServerMAC.IsZero() || lease.Returned || a.ParentIdx == 0 {
		return
	}
	err := l.Host.Do(func() error {
		c, err := openConn(f, a.ParentIdx, clientOf(a))
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Release(*lease)
	})
	if err != nil {
		l.Log.Warn("could not release an address to its DHCP server: the server has it until the lease ends",
			"address", lease.Addr, "server", lease.Server, "ends", lease.Expires.Wall(), "err", err)
	}
}

// addrOfLease returns the address of a lease, with the times that remain.
func addrOfLease(l *dhcp.Lease) link.Addr {
	now := boottime.Now()
	a := link.Addr{Prefix: l.Addr, Valid: l.Remaining(now)}
	if l.Deprecated != 0 && l.Deprecated < l.Expires {
		a.Preferred = max(l.Deprecated.Sub(now), 0).Truncate(time.Second)
		a.Deprecated = a.Preferred == 0
	}
	return a
}
