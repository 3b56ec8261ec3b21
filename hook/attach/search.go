package attach

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// maxCandidates is the number of addresses that one attach tries while each has a claimant.
const maxCandidates = 8

// verifyAndConfigure probes the LAN, sets addresses and routes, and judges the answers. If a
// candidate address has a claimant, it declines the address and tries the next one, unless the
// address was requested. The verdict is in the record. A late conflict over an address that was
// not requested is a *lateConflict.
func (t *attempt) verifyAndConfigure(ctx context.Context) error {
	unverified := func(text string) verify.Verdict { return verify.Verdict{Code: verify.Unverified, Text: text} }
	t.rec.Verdicts = nil // of an earlier attach, if the interface is created again
	switch {
	case t.rec.Mode == verify.Off:
		t.rec.Verdict = unverified("verification is off")
		return t.ns.Do(t.configure)
	case len(t.rec.Addrs) == 0:
		t.rec.Verdict = unverified("the network assigns no addresses: the workload configures its own")
		return nil
	case t.def.Routed():
		t.rec.Verdict = unverified(fmt.Sprintf("mode %s has no gateway to probe: the host routes", t.def.Mode))
		return t.ns.Do(t.configure)
	}
	for {
		f, err := t.probeAndConfigure(ctx)
		if err != nil {
			return err
		}
		if len(f.Claimants) > 0 {
			excused, err := t.excuse(ctx, f)
			if err != nil {
				return err
			}
			if excused {
				continue
			}
			t.conflicts++
		}
		if len(f.Claimants) == 0 || t.conflicts == maxCandidates || t.claimsRequested(f.Claimants[0]) {
			if err := t.judge(ctx, f); err != nil {
				return err
			}
			return t.confirm(ctx, f)
		}
		if err := t.decline(ctx, f.Claimants[0]); err != nil {
			return err
		}
	}
}

// probeAndConfigure runs one round of probes, and sets and announces the addresses if no other
// station has them. If the findings have a claimant, the addresses are not set. A conflict that is
// detected after the addresses were set is an error, see checkLateConflict.
func (t *attempt) probeAndConfigure(ctx context.Context) (f verify.Findings, err error) {
	if t.hostState, err = t.refreshHostState(ctx); err != nil {
		return f, err
	}
	if f, err = t.probe(ctx); err != nil || len(f.Claimants) > 0 {
		return f, err
	}
	t.reached("probe")
	if err := t.ns.Do(t.configure); err != nil {
		return f, err
	}
	// On a busy host, that took longer than another host's whole conflict window. Without this
	// check, the announcement would be a conflict for a host that uses the address by now.
	if err := t.checkLateConflict(ctx, f); err != nil {
		return f, err
	}
	if err := t.announceAll(); err != nil {
		return f, err
	}
	t.r.Trace.Mark("announce")
	return f, t.checkLateConflict(ctx, f)
}

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
		return t.replaceAddr(ctx, in, t.addrToDecline(c))
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
	err := t.dropFormer(t.rec)
	if err == nil {
		t.rec.Former = nil
		err = t.renewForMAC(ctx, &before)
	}
	return err
}

// renewForMAC gets another lease from a DHCPv6 server if the MAC is another one than before: for servers,
// the interface is another client then, and the kernel has removed its IPv6 addresses.
func (t *attempt) renewForMAC(ctx context.Context, before *hook.Attachment) error {
	if t.rec.DHCP6 == nil || t.rec.MAC == before.MAC {
		return nil
	}
	t.releaseServer(before, hook.IPv6)
	t.rec.DHCP6 = nil
	t.rec.SetServerAddr(hook.IPv6, netip.Prefix{})
	return t.acquireLease(ctx, hook.IPv6)
}

// isRequested reports whether the container requested the address.
func (t *attempt) isRequested(a netip.Addr) bool { return slices.Contains(t.want.Addrs, a) }
