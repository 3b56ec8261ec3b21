package hook

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/verify"
)

// confirm asks once more where what came back can mean two things.
func (t *attempt) confirm(ctx context.Context, f verify.Findings) error {
	if err := t.confirmFiltered(ctx, f); err != nil {
		return err
	}
	return t.confirmOne(ctx, f)
}

// confirmFiltered gives gateways that have answered the parent's MAC a last chance
// to answer the container's: a switch port that just began to forward, or loss on
// the way, may have favoured the one that asked later. IPv6 gateways that have
// answered to all nodes only are asked by the parent first.
func (t *attempt) confirmFiltered(ctx context.Context, f verify.Findings) error {
	if t.sharesMAC() || len(t.indirect)+len(t.controls) == 0 {
		return nil
	}
	suspects := map[netip.Addr]verify.Answer{}
	for g, a := range t.controls {
		if f.Gateways[g].MAC.IsZero() {
			suspects[g] = a
		}
	}
	plan := verify.Plan{Gateways: t.indirect, From: verify.MACOf(t.parent.MAC).LinkLocal(), Deadline: reachTime}
	if len(t.indirect) > 0 {
		g, err := t.askAsParent(ctx, plan)
		if err != nil {
			return err
		}
		maps.Copy(suspects, g.Gateways)
	}
	if t.controls = suspects; len(suspects) == 0 {
		return nil
	}
	plan.Gateways, plan.From = slices.Collect(maps.Keys(suspects)), t.rec.MAC.LinkLocal()
	again, err := t.ask(ctx, plan)
	if err != nil {
		return err
	}
	for g, a := range again.Gateways {
		delete(t.controls, g)
		f.Gateways[g] = a
		f.Probes[g] += again.Probes[g]
	}
	return t.judge(ctx, f)
}

// confirmOne asks once more where two answered for one gateway. Both of a standing
// conflict answer each question; of a failover that was under way, one does. A
// question for a free address is asked beside it: whoever answers that as well
// is a proxy, and says nothing of the gateway.
func (t *attempt) confirmOne(ctx context.Context, first verify.Findings) error {
	i := slices.IndexFunc(t.rec.Verdicts, func(v verify.Verdict) bool { return v.Code == verify.GatewayConflict })
	if i < 0 {
		return nil
	}
	gateway := t.rec.Verdicts[i].Gateway
	apart := first.Others[gateway].At.Sub(first.Gateways[gateway].At) // 0 where the prober has heard one alone
	if t.rec.Evidence != nil {
		apart = t.rec.Evidence.Gateways[i].Reply.At.Sub(t.rec.Evidence.Gateways[i].OtherAt)
	}
	free, err := t.freeAddrs(ctx, gateway)
	if err != nil {
		return err
	}
	plan := t.plan()
	plan.Observed, plan.Ask = nil, nil // of free addresses the trunk knows nothing
	if plan.Addrs = free; len(free) == 0 {
		plan.Addrs = t.addrs() // ours: nobody answers, and the window is kept open
	}
	plan.Window = max(plan.Window, 2*max(t.rec.Verdicts[i].RTT, apart)+controlSlack)
	f, err := t.ask(ctx, plan)
	if err != nil {
		return err
	}
	if len(f.Claimants) == 0 {
		return t.judge(ctx, f)
	}
	for _, r := range f.Claimants {
		if slices.Contains(free, r.Addr) {
			t.proxies = append(t.proxies, r.MAC)
		}
	}
	return t.judge(ctx, first) // the proxy ended the round before the gateway could answer
}
