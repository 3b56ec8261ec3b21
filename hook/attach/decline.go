package attach

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// pickRandomAfter is the number of candidates with a claimant after which the search continues at
// a random address: another host may assign addresses of the same range in order.
const pickRandomAfter = 3

// decline declines the address that a claimant has, claims the next one, and changes record,
// guard, datapath and interface to it.
func (t *attempt) decline(ctx context.Context, c verify.Claimant) error {
	before, old := t.rec, t.rec.Endpoint
	t.rec.Former = &old // undo needs it until the interface has changed and the old endpoint is removed
	// If two hosts probe at the same time, both decline. In the same order, they would choose
	// the same address again.
	t.pickRandom = c.Probing || t.conflicts >= pickRandomAfter
	if a := t.addrToDecline(c); t.rec.ServerLease(hook.FamilyOf(a)) != nil {
		err := t.declineServers(ctx, a)
		t.rec.Former = nil // the MAC is the same
		return err
	}
	if err := t.WithStore(ctx, t.rec.Leases, func(in ipam.Store) error {
		return t.replaceAddr(ctx, t.withShare(in), t.addrToDecline(c))
	}); err != nil {
		return err
	}
	if err := t.recordEndpoint(ctx); err != nil {
		return err
	}
	failpoint.At("decline")
	if err := t.expectFrames(ctx); err != nil {
		return err
	}
	if err := t.readdress(ctx); err != nil {
		return err
	}
	if err := t.forgetFormer(); err != nil {
		return err
	}
	return t.renewForMAC(ctx, &before)
}

// renewForMAC gets another lease from a DHCPv6 server if the MAC is another one than before: for servers,
// the interface is another client then, and the kernel has removed its IPv6 addresses.
func (t *attempt) renewForMAC(ctx context.Context, before *hook.Attachment) error {
	if t.rec.DHCP6 == nil || t.rec.MAC == before.MAC {
		return nil
	}
	if err := t.giveBack(ctx, before, hook.IPv6, 0); err != nil {
		return err
	}
	t.rec.DHCP6 = nil
	t.rec.SetServerAddr(hook.IPv6, netip.Prefix{})
	return t.acquireLease(ctx, hook.IPv6)
}

// claimsRequested reports whether the claimant has the address or MAC that the container requested, or a
// MAC that another address would not change, because it is not derived from one.
func (t *attempt) claimsRequested(c verify.Claimant) bool {
	if c.SameMAC && !t.want.MAC.IsZero() || len(t.rec.Addrs) == 0 {
		return true
	}
	a := t.addrToDecline(c)
	return slices.Contains(t.want.Addrs, a) || c.SameMAC && t.rec.ServerLease(hook.FamilyOf(a)) != nil
}

// addrToDecline returns the address to decline because of a claimant: the one that it claims or, if
// it has the interface's MAC, the first one, from which the MAC is derived.
func (t *attempt) addrToDecline(c verify.Claimant) netip.Addr {
	if c.SameMAC || !c.Addr.IsValid() {
		return t.rec.Addrs[0].Addr()
	}
	return c.Addr
}

// giveUp declines an address, to the DHCP server, too, if it comes from one.
func (t *attempt) giveUp(ctx context.Context, a netip.Addr) error {
	if t.rec.ServerLease(hook.FamilyOf(a)) != nil {
		return t.giveUpLease(ctx, a)
	}
	return t.WithStore(ctx, t.rec.Leases, func(in ipam.Store) error { return t.declineLease(ctx, t.withShare(in), a) })
}

// declineTime is how long an address with a claimant is not assigned: long enough that starts do
// not try it again and again, short enough that an address that its claimant gives up is soon
// usable again.
const declineTime = 10 * time.Minute

// declineLease declines an address that another station uses: it is not assigned for declineTime.
func (t *attempt) declineLease(ctx context.Context, in ipam.Store, a netip.Addr) error {
	i := slices.IndexFunc(t.rec.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
	return in.Decline(ctx, t.rec.Pools[i], a, ownerOf(t.rec), declineTime)
}

// replaceAddr declines one address and claims the next of the same subnet.
func (t *attempt) replaceAddr(ctx context.Context, in ipam.Store, a netip.Addr) error {
	i := slices.IndexFunc(t.subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a) })
	s := t.subnets[i]
	if err := t.declineLease(ctx, in, a); err != nil {
		return err
	}
	next, err := t.claimIn(ctx, in, s)
	if err != nil {
		return fmt.Errorf("address %s is in use by another station on the LAN: %w", a, err)
	}
	t.rec.Addrs[i] = netip.PrefixFrom(next, s.Subnet.Bits())
	return nil
}
