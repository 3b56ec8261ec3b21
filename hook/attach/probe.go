package attach

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// probe runs one round: it asks whether another station has the addresses, and asks the gateways.
func (v *verification) probe(ctx context.Context) (f verify.Findings, err error) {
	err = v.onProbeLink(func(index int, name string) error {
		p, err := v.Probers.Quick(index, v.rec.MAC, v.unwatched == "")
		if err != nil {
			return fmt.Errorf("open a prober on %q: %w", name, err)
		}
		// Close deletes the candidates' entries in the neighbour table, which must happen
		// before the addresses are set.
		plan := v.plan()
		plan.Asked, v.askedAt = v.askedAt, 0
		plan.OnSilence, plan.Direct = v.startControl(ctx), v.directAddr()
		f, err = verify.Round(ctx, p, plan)
		v.finishControl(f, plan)
		closeErr := p.Close()
		if err != nil {
			return err
		}
		return closeErr
	})
	if err != nil || len(f.Claimants) > 0 || v.unwatched == "" || v.sharesMAC() {
		return f, err
	}
	return f, v.askBlind(ctx, &f)
}

// askBlind asks for conflicts from the parent, through a packet socket, for a trunk that is not
// watched.
func (v *verification) askBlind(ctx context.Context, f *verify.Findings) error {
	plan := v.plan()
	plan.Gateways = nil
	g, err := v.askAsParent(ctx, v.parent, plan)
	for i := range g.Claimants {
		g.Claimants[i].SameMAC = g.Claimants[i].MAC == v.rec.MAC
	}
	f.Claimants = g.Claimants
	return err
}

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
