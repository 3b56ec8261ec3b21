package serve

import (
	"context"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook/attach"
)

// movedPause is the minimum time between two announcements on one trunk, for a bond that changes its
// port again and again. movedAgain is the time from the last change to a second announcement: the
// first may be lost, because the new port does not forward yet.
const (
	movedPause = 100 * time.Millisecond
	movedAgain = time.Second
)

// announceMoved announces the containers on each trunk that moves to another switch port, until ctx
// ends.
func announceMoved(ctx context.Context, l *attach.Local, o Options) {
	moves := make(chan int, 64)
	var watch sync.WaitGroup
	watch.Go(func() { watchMoves(ctx, l, o, moves) })
	defer watch.Wait()
	last := map[int]time.Time{} // by the trunk's ifindex; those that are due once more
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case trunk := <-moves:
			if time.Since(last[trunk]) >= movedPause {
				announce(ctx, l, o, trunk)
				last[trunk] = time.Now()
			}
			again = time.After(movedAgain)
		case <-again:
			for trunk := range last {
				announce(ctx, l, o, trunk)
			}
			clear(last)
		}
	}
}

// watchMoves sends the ifindex of each link that has moved. It does not wait for announcements, so
// that it loses no netlink message: if the channel is full, 64 announcements are due anyway.
func watchMoves(ctx context.Context, l *attach.Local, o Options, moves chan<- int) {
	for ctx.Err() == nil {
		err := l.Host.MovedLinks(ctx, func(index int) {
			select {
			case moves <- index:
			default:
			}
		})
		if err == nil {
			continue
		}
		o.Log.Error("cannot see whether bonds change their port", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// announce announces the containers on one trunk.
func announce(ctx context.Context, l *attach.Local, o Options, trunk int) {
	n, err := l.AnnounceMoved(ctx, trunk)
	if n > 0 {
		o.Log.Info("announced containers: their trunk moved to another switch port", "ifindex", trunk, "attachments", n)
	}
	if err != nil && ctx.Err() == nil {
		o.Log.Error("cannot announce containers after their trunk moved", "ifindex", trunk, "err", err)
	}
}
