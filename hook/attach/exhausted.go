package attach

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
)

// releaseWait is the maximum wait for releases in progress, of an attach that finds the pool, the quota or
// the MAC in use.
const releaseWait = 2 * time.Second

// sweepForRoom releases unused attachments, so that this attach can have their address, MAC or place in
// the quota: a pool without a free address leases one in quarantine. It first undoes the record of this
// attach. It returns an error only if it has released nothing because of it.
func (t *attempt) sweepForRoom(ctx context.Context) error {
	if err := t.startOver(ctx); err != nil {
		return err
	}
	// A caller without privilege releases only its own, and does not wait for the release of others.
	mine := func(a *hook.Attachment) bool { return t.caller == nil || a.Owner == t.caller.UID }
	if err := t.waitForReleases(ctx, mine); err != nil {
		return err
	}
	released, err := t.SweepSelected(ctx, mine)
	delivered := 0
	if t.def.Leases != "" && t.outageOf() == nil {
		var deliverErr error
		delivered, deliverErr = t.Deliver(ctx)
		err = errors.Join(err, deliverErr)
	}
	if len(released) == 0 && delivered == 0 || err == nil {
		return err
	}
	// Not an error of this attach: the owner of a namespace can prevent the release of its own
	// attachments.
	t.Log.Warn("could not release all attachments that are not in use", "err", err)
	return nil
}

// waitForReleases waits until no other goroutine or process is releasing an attachment that selected
// selects, such as the sweep of a service that has just started; releaseWait at the most.
func (t *attempt) waitForReleases(ctx context.Context, selected func(*hook.Attachment) bool) error {
	end := time.Now().Add(releaseWait)
	for wait := recordPoll; ; wait = min(2*wait, recordPollMax) {
		recs, err := t.Attachments(ctx)
		if err != nil || time.Now().After(end) || !slices.ContainsFunc(recs, func(a hook.Attachment) bool {
			return a.State == hook.Detaching && selected(&a) && netns.Alive(a.Hook)
		}) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
