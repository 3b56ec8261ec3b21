package attach

import (
	"context"
	"fmt"

	"github.com/lanyard-net/lanyard/verify"
)

// maxCandidates is the number of addresses that one attach tries while each has a claimant, and how often
// a request attaches while each attach ends with a late conflict.
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
			return t.judgeAndConfirm(ctx, f)
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
	return f, t.announceUnlessClaimed(ctx, f)
}
