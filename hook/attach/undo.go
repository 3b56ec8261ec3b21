package attach

import (
	"context"
	"errors"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/record"
)

// undoTimeout limits the undo of a failed attach. It starts when the undo starts, because the
// caller's deadline may be over.
const undoTimeout = 5 * time.Second

// undo releases the attachments of one request in reverse order, also if the caller's deadline is
// over. If another container of the namespace has joined an attachment since, undo only drops the
// reference that this process has added.
func (l *Local) undo(ctx context.Context, r hook.Request, recs ...hook.Attachment) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for i := len(recs) - 1; i >= 0; i-- {
		err = errors.Join(err, l.undoOne(ctx, r, recs[i]))
	}
	return err
}

// undoOne drops the reference of the request's container to an attachment, and releases the
// attachment if no reference remains.
func (l *Local) undoOne(ctx context.Context, r hook.Request, rec hook.Attachment) error {
	// If the row is missing, the database was lost, and the resources still exist.
	t := &detaching{rec, rec.State}
	self, err := netns.Self()
	if err != nil {
		return err
	}
	over := func(c hook.Container) bool { return c.ID == r.Container && c.By == self }
	err = l.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, rec.ID)
		if errors.Is(err, hook.ErrGone) {
			return nil
		}
		if err == nil {
			t, err = dropReferences(tx, row, over)
		}
		if t != nil {
			t.Attachment = rec // has fields that are not in the row yet
		}
		return err
	})
	if err != nil {
		return errors.Join(err, l.releaseForRetry(ctx, rec.ID))
	}
	if t == nil {
		return nil
	}
	return l.drop(ctx, *t)
}
