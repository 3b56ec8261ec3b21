package attach

import (
	"context"
	"fmt"

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
