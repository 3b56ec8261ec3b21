package attach

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/record"
)

// Detach implements [hook.Attacher]. It drops only references to containers with an exited init: an
// engine that keeps a container's id over a restart calls poststop for the old run after the new
// one was attached. A reference without a process is dropped in any case. A pod's attachment stays
// without references while its interface exists, unless the dropped one had no process. Detach
// does not check privileges and never returns ErrUnprivileged.
func (l *Local) Detach(ctx context.Context, containerID string) error {
	return l.detach(ctx, containerID, func(*hook.Attachment) bool { return true })
}

// detach drops the container's references to the attachments that selected selects.
func (l *Local) detach(ctx context.Context, containerID string, selected func(*hook.Attachment) bool) error {
	var all []detaching
	ofPod := false
	err := l.WithDB(ctx, func() error {
		all = nil
		return l.DB.Update(ctx, func(tx record.Tx) error {
			held, err := record.ByContainer(tx, containerID)
			for _, a := range held {
				// A hook that still attaches detects itself that its container has
				// exited. It must not lose the address before.
				if !selected(&a) || a.State != hook.Attached && netns.Alive(a.Hook) {
					continue
				}
				ofPod = ofPod || a.OfPod()
				over := func(c hook.Container) bool { return c.ID == containerID && (c.ByPath() || c.Exited()) }
				if kept, kerr := l.keepForPod(tx, a, over); kept || kerr != nil {
					err = errors.Join(err, kerr)
					continue
				}
				t, terr := dropReferences(tx, a, over)
				err = errors.Join(err, terr)
				if t != nil {
					all = append(all, *t)
				}
			}
			return err
		})
	})
	if err == nil { // else none is marked as detaching, and another container can join them
		for _, t := range all {
			derr := l.drop(ctx, t)
			if derr == nil && l.Detached != nil {
				l.Detached(&t.Attachment)
			}
			err = errors.Join(err, derr)
		}
	}
	if err != nil {
		return fmt.Errorf("detach container %q: %w", containerID, err)
	}
	if ofPod {
		l.sweepPods(ctx)
	}
	return nil
}
