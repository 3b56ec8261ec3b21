package attach

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// closeTime is the time that closing an exact prober takes: its packet socket waits for RCU.
const closeTime = 25 * time.Millisecond

// A control asks the gateways that have not answered the container again, from the parent's own
// MAC. This distinguishes a silent gateway from a filter for MACs on the way, if the container has
// another MAC than the parent. It runs during the container's own round, and only if gateways are
// silent.
//
// For a silent IPv6 gateway it also solicits routers: a router that advertises itself may be the
// gateway, with another address than the one in the definition.
type control struct {
	cancel  context.CancelFunc
	answers chan verify.Findings
}

// startControl returns the function that starts the control, for verify.Plan.OnSilence. Its parameters
// are the silent gateways and the time that the round has left.
func (v *verification) startControl(ctx context.Context) func([]netip.Addr, time.Duration) {
	return func(silent []netip.Addr, left time.Duration) {
		plan := verify.Plan{
			// The answer to :: would go to all nodes, also to the container.
			From:     v.parent.MAC.LinkLocal(),
			Routers:  slices.ContainsFunc(silent, netip.Addr.Is6),
			Deadline: max(left-closeTime, closeTime),
		}
		if !v.sharesMAC() {
			plan.Gateways = silent
		} else if !plan.Routers {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		v.control = &control{cancel, make(chan verify.Findings, 1)}
		go func() {
			f, err := v.askAsParent(ctx, v.parent, plan)
			if err != nil && ctx.Err() == nil {
				v.Log.Warn("could not ask the gateways from the parent's MAC", "parent", v.parent.Name, "err", err)
				f.Routers = nil // not asked
			}
			v.control.answers <- f
		}()
	}
}

// finishControl waits for the control, if one runs, and keeps its answers. If all gateways have
// answered the container itself, or if there is a claimant, it cancels the control and keeps none.
func (v *verification) finishControl(f verify.Findings, plan verify.Plan) {
	v.controls, v.routers = nil, nil
	if v.control == nil {
		return
	}
	needless := len(f.Claimants) > 0 || len(f.Gateways) == len(plan.Gateways)
	if needless {
		v.control.cancel()
	}
	answers := <-v.control.answers
	v.control.cancel()
	v.control = nil
	if !needless {
		v.controls, v.routers = answers.Gateways, answers.Routers
	}
}

// controlSlack is added to the expected time of a control question's answer, which is that of the
// claimant's, for a busy router or a busy host. A claimant that is no proxy delays its attach by this
// time.
const controlSlack = 250 * time.Millisecond

// reachTime is the time for the answer to the parent of a gateway that has just answered to all
// nodes.
const reachTime = 250 * time.Millisecond
