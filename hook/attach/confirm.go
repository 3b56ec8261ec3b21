package attach

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// reachTime is the time for the answer of a gateway that has just been heard, unless the network's deadline
// is longer.
const reachTime = 250 * time.Millisecond

// judgeAndConfirm judges the findings of a round. It asks again, and judges again, if the answers have
// two explanations.
func (v *verification) judgeAndConfirm(ctx context.Context, f verify.Findings) error {
	if err := v.judge(ctx, f); err != nil {
		return err
	}
	if err := v.confirmReach(ctx, f); err != nil {
		return err
	}
	return v.confirmOne(ctx, f)
}

// confirmReach asks gateways once more, from the container's MAC, that were heard while the container got no
// answer: they answered the parent's MAC, or all nodes, or the trunk alone saw the answer.
// A switch port that had just begun to forward, or a lost frame, may be the reason. The exact prober also
// hears answers to an address that the interface does not have yet. IPv6 gateways that have answered only
// to all nodes are asked from the parent first.
func (v *verification) confirmReach(ctx context.Context, f verify.Findings) error {
	doubtful := slices.Concat(v.indirect, v.undelivered)
	for g := range v.controls {
		if f.Gateways[g].MAC.IsZero() {
			doubtful = append(doubtful, g)
		} else {
			delete(v.controls, g)
		}
	}
	if len(doubtful) == 0 || len(f.Claimants) > 0 {
		return nil
	}
	plan := verify.Plan{Deadline: max(reachTime, time.Duration(v.def.Deadline))}
	if len(v.indirect) > 0 && !v.sharesMAC() {
		plan.Gateways, plan.From = v.indirect, v.parent.MAC.LinkLocal()
		g, err := v.askAsParent(ctx, v.parent, plan)
		if err != nil {
			return err
		}
		if v.controls == nil {
			v.controls = map[netip.Addr]verify.Answer{}
		}
		maps.Copy(v.controls, g.Gateways)
	}
	slices.SortFunc(doubtful, netip.Addr.Compare)
	plan.Gateways, plan.From = slices.Compact(doubtful), v.rec.MAC.LinkLocal()
	again, err := v.ask(ctx, plan)
	if err != nil {
		return err
	}
	for g, a := range again.Gateways {
		delete(v.controls, g)
		f.Gateways[g] = a
		f.Probes[g] += again.Probes[g]
	}
	return v.judge(ctx, f)
}

// confirmOne asks once more if two stations answered for one gateway. In a permanent conflict, both
// answer each question; after a failover that was in progress, one does. It also asks for a free
// address: a station that answers that question, too, is a proxy, and its answer says nothing about
// the gateway.
func (v *verification) confirmOne(ctx context.Context, first verify.Findings) error {
	i := slices.IndexFunc(v.rec.Verdicts, func(x verify.Verdict) bool { return x.Code == verify.GatewayConflict })
	if i < 0 {
		return nil
	}
	gateway := v.rec.Verdicts[i].Gateway
	apart := first.Others[gateway].At.Sub(first.Gateways[gateway].At)
	if v.rec.Evidence != nil {
		apart = v.rec.Evidence.Gateways[i].Reply.At.Sub(v.rec.Evidence.Gateways[i].OtherAt)
	}
	free, err := v.freeAddrs(ctx, gateway)
	if err != nil {
		return err
	}
	plan := v.plan()
	plan.Direct = v.directAddr()
	plan.Observed, plan.Ask = nil, nil // the trunk program does not watch free addresses
	plan.Addrs = free
	if len(free) == 0 {
		plan.Addrs = v.addrs() // no station answers for them, and the window stays open
	}
	plan.Window = max(plan.Window, 2*max(v.rec.Verdicts[i].RTT, apart)+controlSlack)
	f, err := v.ask(ctx, plan)
	if err != nil {
		return err
	}
	if len(f.Claimants) == 0 {
		if err := v.judge(ctx, f); err != nil {
			return err
		}
		return v.confirmReach(ctx, f)
	}
	for _, c := range f.Claimants {
		if slices.Contains(free, c.Addr) {
			v.proxies = append(v.proxies, c.MAC)
		}
	}
	return v.judge(ctx, first) // the proxy ended the round before the gateway could answer
}
