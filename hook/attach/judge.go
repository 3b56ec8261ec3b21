package attach

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// judge combines the findings of a round with what the trunk program has seen. It sets the record's
// evidence and verdicts: one for each gateway, or one for the link without a gateway.
func (v *verification) judge(ctx context.Context, f verify.Findings) error {
	state := v.hostState
	v.hostState = nil // valid for one round
	if state == nil {
		var err error
		if state, err = v.refreshHostState(ctx); err != nil {
			return err
		}
	}
	facts := verify.Facts{
		Parent: v.parent.Name, Trunk: v.parent.Trunk, Tags: v.rec.Endpoint.Tags, MAC: v.rec.MAC,
		Asked: f.Asked, Now: f.Ended, Unwatched: v.unwatched,
		Down: state.down, Local: func(mac ether.MAC) bool { return v.isLocal(state, mac) }, Proxies: v.proxies,
		Port: func() string { return v.SwitchPort(ctx, v.parent) },
	}
	e, err := v.readEvidence(f)
	if err != nil {
		return err
	}
	v.rec.Evidence = e
	if e != nil {
		facts.VLANs = e.VLANs
	}
	v.rec.Verdicts, v.indirect, v.undelivered = nil, nil, nil
	for i, g := range v.targets() {
		each, err := v.factsOf(facts, f, i, g)
		if err != nil {
			return err
		}
		if each.Indirect() {
			v.indirect = append(v.indirect, g)
		}
		if each.Undelivered() {
			v.undelivered = append(v.undelivered, g)
		}
		v.rec.Verdicts = append(v.rec.Verdicts, verify.Judge(each))
	}
	v.rec.Verdict = verify.Worst(v.rec.Verdicts)
	v.trace.Mark("judge")
	return nil
}

// readEvidence returns what the trunk program has seen, and with it the round's claims that the program
// does not keep. It returns nil if the datapath does not watch the interface.
func (v *verification) readEvidence(f verify.Findings) (*verify.Evidence, error) {
	if v.unwatched != "" {
		return nil, nil
	}
	e, err := v.Datapath.Evidence(v.rec.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("read evidence from trunk %q: %w", v.parent.Trunk, err)
	}
	e.Routers = v.routers
	for _, c := range f.Claimants {
		if c.Probing || c.Link != "" {
			e.Claimants = append(e.Claimants, c)
		}
	}
	return &e, nil
}

// factsOf adds to the facts of the whole round those of target i: a gateway, or the link of an interface
// without one.
func (v *verification) factsOf(
	facts verify.Facts, f verify.Findings, i int, target netip.Addr,
) (verify.Facts, error) {
	facts.Claimants = v.claimantsOf(f, target)
	if len(v.rec.Gateways) > 0 {
		facts.Gateway, facts.Answer, facts.Other = target, f.Gateways[target], f.Others[target]
		facts.Probes, facts.Control = f.Probes[target], v.controls[target]
		if facts.Answer.MAC.IsZero() {
			var err error
			if facts.GatewayLink, err = v.HostLinkOf(target); err != nil {
				return facts, err
			}
		}
	}
	if target.Is6() {
		facts.Routers = v.routers
	}
	if v.rec.Evidence != nil {
		facts.Seen = &v.rec.Evidence.Gateways[i]
	}
	if facts.MissedFrames() {
		// An error means that the program was removed during the round. The next start
		// or verification loads it again.
		ahead, err := v.Datapath.Ahead(v.parent.TrunkIndex)
		facts.Ahead = ahead
		if err != nil {
			facts.Seen, facts.Unwatched = nil, err.Error()
		}
	}
	return facts, nil
}

// claimantsOf returns the claimants that belong to the verdict of a gateway: those of addresses in
// its family, those with the interface's MAC, and those in a family without a gateway.
func (v *verification) claimantsOf(f verify.Findings, gateway netip.Addr) (list []verify.Claimant) {
	for _, c := range f.Claimants {
		same := func(g netip.Addr) bool { return c.SameMAC || g.Is4() == c.Addr.Is4() }
		if same(gateway) || !slices.ContainsFunc(v.targets(), same) {
			list = append(list, c)
		}
	}
	return list
}
