package attach

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/verify"
)

// confirm asks again if the answers of a round have two explanations.
func (t *attempt) confirm(ctx context.Context, f verify.Findings) error {
	if err := t.confirmFiltered(ctx, f); err != nil {
		return err
	}
	return t.confirmOne(ctx, f)
}

// confirmFiltered asks gateways that answered the parent's MAC, but not the container's, once more
// from the container's MAC. The parent asked later, so a switch port that had just begun to
// forward, or a lost frame, may be the reason. IPv6 gateways that have answered only to all nodes
// are asked from the parent first.
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
	t.controls = suspects
	if len(suspects) == 0 {
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

// confirmOne asks once more if two stations answered for one gateway. In a permanent conflict, both
// answer each question; after a failover that was in progress, one does. It also asks for a free
// address: a station that answers that question, too, is a proxy, and its answer says nothing about
// the gateway.
func (t *attempt) confirmOne(ctx context.Context, first verify.Findings) error {
	i := slices.IndexFunc(t.rec.Verdicts, func(v verify.Verdict) bool { return v.Code == verify.GatewayConflict })
	if i < 0 {
		return nil
	}
	gateway := t.rec.Verdicts[i].Gateway
	apart := first.Others[gateway].At.Sub(first.Gateways[gateway].At) // 0 if the prober has heard only one
	if t.rec.Evidence != nil {
		apart = t.rec.Evidence.Gateways[i].Reply.At.Sub(t.rec.Evidence.Gateways[i].OtherAt)
	}
	free, err := t.freeAddrs(ctx, gateway)
	if err != nil {
		return err
	}
	plan := t.plan()
	plan.Observed, plan.Ask = nil, nil // the trunk program does not watch free addresses
	plan.Addrs = free
	if len(free) == 0 {
		plan.Addrs = t.addrs() // no station answers for them, and the window stays open
	}
	plan.Window = max(plan.Window, 2*max(t.rec.Verdicts[i].RTT, apart)+controlSlack)
	f, err := t.ask(ctx, plan)
	if err != nil {
		return err
	}
	if len(f.Claimants) == 0 {
		return t.judge(ctx, f)
	}
	for _, c := range f.Claimants {
		if slices.Contains(free, c.Addr) {
			t.proxies = append(t.proxies, c.MAC)
		}
	}
	return t.judge(ctx, first) // the proxy ended the round before the gateway could answer
}
