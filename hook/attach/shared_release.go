package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// deliverTimeout is how long the end of an attachment waits for a store that hosts share. If the
// store is out of reach, the sweep delivers later.
const deliverTimeout = time.Second

// removeAndRelease removes a record with leases in a store that hosts share, and queues the release
// of the leases in the same transaction. It tries to deliver the release at once, unless earlier
// ones wait: then the store was out of reach a moment ago.
func (l *Local) removeAndRelease(ctx context.Context, a hook.Attachment, quarantine time.Duration) error {
	first := false
	if err := l.DB.Update(ctx, func(tx record.Tx) (err error) {
		if err := record.Remove(tx, a.ID); err != nil {
			return err
		}
		first, err = record.QueueRelease(tx, record.Release{Attachment: a, Quarantine: quarantine, At: boottime.Now()})
		return err
	}); err != nil {
		return err
	}
	if first {
		soon, cancel := context.WithTimeout(ctx, deliverTimeout)
		defer cancel()
		_, _ = l.Deliver(soon) // the queue keeps what was not delivered
	}
	return nil
}

// deliverAtOnce is the number of releases that Deliver reads in one transaction.
const deliverAtOnce = 64

// Deliver releases in the stores that hosts share what was queued, in the order of the queue, and
// returns how many releases it delivered. It stops if a store is out of reach. One that the store cannot
// carry out, such as of a row that it cannot read, stays in the queue, and does not stop the others. If
// Deliver is killed, or another process delivers at the same time, a store may get a release twice: the
// owner holds nothing then, and nothing changes.
func (l *Local) Deliver(ctx context.Context) (delivered int, err error) {
	var last record.Release
	for {
		var list []record.Release
		if verr := l.DB.View(ctx, func(tx record.Tx) (err error) {
			list, err = record.ReleasesAfter(tx, last, deliverAtOnce)
			return err
		}); verr != nil || len(list) == 0 {
			return delivered, errors.Join(err, verr)
		}
		for _, r := range list {
			derr := l.deliver(ctx, r)
			if derr == nil {
				delivered++
				continue
			}
			derr = fmt.Errorf("release %s on network %q: %w (it is tried again later)",
				joinPrefixes(r.Attachment.Addrs), r.Attachment.Network, derr)
			if ctx.Err() != nil || errors.Is(derr, ipam.ErrOutOfReach) || errors.Is(derr, parts.ErrNoClient) {
				return delivered, derr
			}
			err = cmp.Or(err, derr) // the first is enough: the others may have the same reason
		}
		last = list[len(list)-1]
	}
}

func (l *Local) deliver(ctx context.Context, r record.Release) error {
	if err := l.WithStore(ctx, r.Attachment.Leases, func(in ipam.Store) error {
		return releasePools(ctx, in, r.Attachment, r.Left(boottime.Now()))
	}); err != nil {
		return err
	}
	return l.DB.Update(ctx, func(tx record.Tx) error { return record.RemoveRelease(tx, r) })
}
