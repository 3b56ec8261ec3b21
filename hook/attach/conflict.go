package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// openWindow asks the conflict question for the first time, so that the conflict window is open
// while the interface is created.
func (t *attempt) openWindow() error {
	t.askedAt = 0
	if t.unwatched != "" || t.rec.Mode == verify.Off || t.def.Routed() || len(t.rec.Addrs) == 0 {
		return nil
	}
	// The parent's own question may come back, and must not count as a claim.
	if err := t.tellLocals(nil); err != nil {
		return err
	}
	t.askedAt = verify.Now()
	if err := t.askConflict(); err != nil {
		return err
	}
	t.reached("ask")
	return nil
}

// askConflict asks the LAN, from the parent and with the parent's MAC, whether another station has
// one of the addresses. The trunk program sees the answers. They go to the parent's MAC, so that a
// station with the interface's own MAC answers, too. The parent's frames do not reach the macvlans
// on it: the addresses of Lanyard's are known from their leases, and the others are asked from
// inside the namespace (see unrecordedMACs).
func (v *verification) askConflict() error {
	mac := v.parent.MAC
	return v.Host.Do(func() error {
		for _, a := range v.addrs() {
			questions := []verify.Question{{Addr: a, Conflict: true}}
			if a.Is6() {
				// The answer to one station also passes a network card that has not joined
				// the group of all nodes.
				questions = append(questions, verify.Question{Addr: a, Conflict: true, From: mac.ProbeLinkLocal()})
			}
			for _, q := range questions {
				if err := v.Probers.Ask(v.parent.Index, mac, q); err != nil {
					return fmt.Errorf("ask from parent %q: %w", v.parent.Name, err)
				}
			}
		}
		return nil
	})
}

// claimants returns the claimants that the trunk program has seen after ignoreUntil, and after their
// station was excused. In a later verification, probes do not count as claims. On an error it returns
// none, because the prober also hears claimants.
func (v *verification) claimants() []verify.Claimant {
	list, err := v.Datapath.Claimants(v.rec.Endpoint)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(c verify.Claimant) bool {
		return c.At <= max(v.ignoreUntil, v.excused[c.MAC]) || c.Probing && v.configured || v.isKept(c.Addr)
	})
}

// A lateConflict is returned for a conflict over an address that was not requested, if it is
// detected after the address was set: another host has started a container with it at the same
// time. The address is declined, and the caller repeats the attach from its beginning.
type lateConflict struct{ verify.Claimant }

func (c *lateConflict) Error() string {
	return fmt.Sprintf("address %s was claimed by %s at the same time: start the container again",
		c.Addr, c.MAC.Describe())
}

// checkLateConflict checks for conflicts again after the addresses were set, and after they were
// announced. If two hosts start at the same time, each has by then received the other's question,
// its answer or its announcement. A conflict over a requested address or MAC is a *Refusal, any other one a
// *lateConflict.
func (t *attempt) checkLateConflict(ctx context.Context, f verify.Findings) error {
	if t.unwatched != "" {
		return nil
	}
	// An excused claimant hides no other: the address of the other family may have one, too.
	for excused := true; excused; {
		f.Claimants = slices.DeleteFunc(t.claimants(), func(c verify.Claimant) bool {
			return slices.Contains(t.proxies, c.MAC)
		})
		if len(f.Claimants) == 0 {
			return nil
		}
		var err error
		if excused, err = t.excuse(ctx, f); err != nil {
			return err
		}
	}
	if c := f.Claimants[0]; !t.claimsRequested(c) {
		return errors.Join(&lateConflict{c}, t.giveUp(ctx, t.addrToDecline(c)))
	}
	if err := t.judge(ctx, f); err != nil {
		return err
	}
	return &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
}

// claimsRequested reports whether the claimant has the address or MAC that the container requested.
func (t *attempt) claimsRequested(c verify.Claimant) bool {
	if c.SameMAC && !t.want.MAC.IsZero() || len(t.rec.Addrs) == 0 {
		return true
	}
	return slices.Contains(t.want.Addrs, t.addrToDecline(c))
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
	return t.WithStore(ctx, t.rec.Leases, func(in ipam.Store) error { return t.declineLease(ctx, in, a) })
}
