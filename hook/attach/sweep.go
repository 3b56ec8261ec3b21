package attach

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/verify"
)

// Sweep releases the attachments of crashed hooks and of containers that are gone, and returns
// them. It reads the records first and looks for processes and namespaces second, and again when it
// takes a record: an attachment that is created or joined in between stays. Sweep also delivers the
// releases that wait for a store which hosts share. A program without its client leaves them to the
// service.
func (l *Local) Sweep(ctx context.Context) ([]hook.Attachment, error) {
	swept, err := l.SweepSelected(ctx, func(*hook.Attachment) bool { return true })
	if _, deliverErr := l.Deliver(ctx); !errors.Is(deliverErr, parts.ErrNoClient) {
		err = errors.Join(err, deliverErr)
	}
	return swept, err
}

// SweepSelected is Sweep for the attachments that which selects.
func (l *Local) SweepSelected(
	ctx context.Context, which func(*hook.Attachment) bool,
) (swept []hook.Attachment, err error) {
	recs, live, err := l.recordsWithLiveness(ctx)
	if err != nil {
		return nil, err
	}
	return l.sweepRecords(ctx, recs, which, live)
}

// recordsWithLiveness returns all records, and then a function that reports whether one of them is live. It
// searches all namespaces at most once.
func (l *Local) recordsWithLiveness(
	ctx context.Context,
) (recs []hook.Attachment, live func(*hook.Attachment) bool, err error) {
	recs, err = l.Attachments(ctx)
	if err != nil {
		return nil, nil, err
	}
	boot, err := netns.BootID()
	if err != nil {
		return nil, nil, err
	}
	exists := l.netnsFinderFor(recs)
	return recs, func(a *hook.Attachment) bool { return l.liveIn(a, boot, exists) }, nil
}

// sweepRecords releases those of recs that which selects and that are not live.
func (l *Local) sweepRecords(
	ctx context.Context, recs []hook.Attachment, which, live func(*hook.Attachment) bool,
) (swept []hook.Attachment, err error) {
	for _, a := range recs {
		if !which(&a) || live(&a) {
			continue
		}
		dropped, derr := l.dropUnlessLive(ctx, a.ID, live)
		if derr != nil {
			err = errors.Join(err, fmt.Errorf("sweep %q on network %q: %w", a.Interface, a.Network, derr))
		} else if dropped {
			swept = append(swept, a)
		}
	}
	return swept, err
}

// dropUnlessLive drops a record, unless it is live or gone when the transaction reads it. dropped
// is true if this process has marked the record, also if the release then failed.
func (l *Local) dropUnlessLive(
	ctx context.Context, id verify.ID, live func(*hook.Attachment) bool,
) (dropped bool, err error) {
	var t *detaching
	err = l.DB.Update(ctx, func(tx record.Tx) error {
		a, err := record.Get(tx, id)
		if errors.Is(err, hook.ErrGone) || err == nil && live(&a) {
			return nil
		}
		if err == nil {
			t, err = dropReferences(tx, a, func(hook.Container) bool { return true })
		}
		return err
	})
	if t == nil || err != nil {
		return false, err
	}
	return true, l.drop(ctx, *t)
}
