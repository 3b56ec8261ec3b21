package attach

import (
	"context"
	"fmt"

	"github.com/lanyard-net/lanyard/verify"
)

// expectFrames gives the guard the permit and tells the datapath which frames to expect, so that the
// interface's first frame is covered. Then it asks the conflict question for the first time.
func (t *attempt) expectFrames(ctx context.Context) error {
	if err := t.permit(ctx); err != nil {
		return err
	}
	if err := t.expect(ctx); err != nil {
		return err
	}
	return t.openWindow()
}

// expect tells the datapath which frames to expect from the endpoint, if the trunk is watched.
func (t *attempt) expect(ctx context.Context) error {
	if t.unwatched != "" {
		return nil
	}
	err := t.acquire(ctx, func() error { return t.Datapath.Expect(t.rec.Endpoint) })
	if err != nil {
		return fmt.Errorf("watch trunk %q: %w", t.parent.Trunk, err)
	}
	t.reached("expect")
	return nil
}

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
