package hook

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook/link"
)

// Detach implements [Attacher]. It drops only references whose init has
// exited: an engine that keeps a container's id over a restart calls poststop
// for the old run after the new one was attached. A pod's attachment stays
// without references while its interface exists.
func (l *Local) Detach(ctx context.Context, containerID string) error {
	return l.detach(ctx, containerID, func(*Attachment) bool { return true })
}

// detach drops the container's references to those attachments that mine picks.
func (l *Local) detach(ctx context.Context, containerID string, mine func(*Attachment) bool) error {
	var all []detaching
	ofPod := false
	err := l.withDB(ctx, func() error {
		all = nil
		return l.DB.Update(ctx, func(tx Tx) error {
			held, err := findReady(tx, bucketContainers, containerID)
			for _, a := range held {
				// A hook that is still at it, its container dead or not, finds that
				// out itself: it must not lose the address under its hands.
				if !mine(&a) || a.State != Attached && link.Alive(a.Hook) {
					continue
				}
				ofPod = ofPod || a.ofPod()
				over := func(c Container) bool { return c.ID == containerID && !link.Alive(c.Process) }
				if kept, kerr := l.keepForPod(tx, a, over); kept || kerr != nil {
					err = errors.Join(err, kerr)
					continue
				}
				t, terr := dropReferences(tx, a, over)
				if err = errors.Join(err, terr); t != nil {
					all = append(all, *t)
				}
			}
			return err
		})
	})
	for _, t := range all {
		err = errors.Join(err, l.drop(ctx, t))
	}
	if err != nil {
		return fmt.Errorf("detach container %q: %w", containerID, err)
	}
	if ofPod {
		l.sweepPods(ctx)
	}
	return nil
}
