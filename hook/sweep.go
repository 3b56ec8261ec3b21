package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// Detach implements [Attacher]. It drops only references whose init has
// exited: an engine that keeps a container's id over a restart calls poststop
// for the old run after the new one was attached.
func (l *Local) Detach(ctx context.Context, containerID string) error {
	return l.detach(ctx, containerID, func(*Attachment) bool { return true })
}

// detach drops the container's references to those attachments that mine picks.
func (l *Local) detach(ctx context.Context, containerID string, mine func(*Attachment) bool) error {
	var all []taken
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
				t, terr := take(tx, a, func(c Container) bool { return c.ID == containerID && !link.Alive(c.Process) })
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
	return nil
}

// Sweep takes back what crashed hooks and vanished containers left, and
// returns what it took. The records are read first and the living looked at
// second, and again when a record is taken: what is attached in between, or
// joined by another container, stays.
func (l *Local) Sweep(ctx context.Context) ([]Attachment, error) {
	return l.sweep(ctx, false, func(*Attachment) bool { return true })
}

// sweep takes back those that which picks. Where somebody waits for the addresses
// they are free at once, without a quarantine.
func (l *Local) sweep(ctx context.Context, atOnce bool, which func(*Attachment) bool) (swept []Attachment, err error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	boot, err := link.BootID()
	if err != nil {
		return nil, err
	}
	for _, a := range recs {
		if !which(&a) || l.live(&a, boot) {
			continue
		}
		did, derr := l.dropDead(ctx, a.ID, boot, atOnce)
		if derr != nil {
			err = errors.Join(err, fmt.Errorf("sweep %q on network %q: %w", a.Interface, a.Network, derr))
		} else if did {
			swept = append(swept, a)
		}
	}
	return swept, err
}

// dropDead drops a record if nobody needs it now.
func (l *Local) dropDead(ctx context.Context, id verify.ID, boot string, atOnce bool) (did bool, err error) {
	var t *taken
	err = l.DB.Update(ctx, func(tx Tx) error {
		a, err := get(tx, id)
		if errors.Is(err, ErrGone) || err == nil && l.live(&a, boot) {
			return nil
		}
		if err == nil {
			t, err = take(tx, a, func(Container) bool { return true })
		}
		return err
	})
	if t == nil || err != nil {
		return false, err
	}
	if atOnce {
		t.Quarantine = 0
	}
	return true, l.drop(ctx, *t)
}

// Attachments gives every record, finished or not.
func (l *Local) Attachments(ctx context.Context) (recs []Attachment, err error) {
	err = l.withDB(ctx, func() error {
		return l.DB.View(ctx, func(tx Tx) (err error) {
			if err = ready(tx); err == nil {
				recs, err = all(tx)
			}
			return err
		})
	})
	return recs, err
}

// live says whether a record still has somebody to be there for. One
// that is being made or taken back lives with the process that does it, an
// attachment with its containers; one that was adopted knows of none, and lives
// with its namespace.
func (l *Local) live(a *Attachment, boot string) bool {
	if a.Netns.Boot != boot {
		return false
	}
	if a.State != Attached {
		return link.Alive(a.Hook)
	}
	if len(a.Containers) == 0 {
		ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
		if ns != nil {
			ns.Close()
		}
		return err != nil || ns != nil
	}
	return slices.ContainsFunc(a.Containers, func(c Container) bool { return link.Alive(c.Process) })
}
