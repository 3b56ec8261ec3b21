package serve

import (
	"context"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook/attach"
)

// movedPause is the interval at which moved links are announced: a bond may change its port again and
// again, and a link and the VLANs on it move together. movedAgain is the time from a trunk's last
// change to a second announcement: the first may be lost, because the new port does not forward
// yet.
const (
	movedPause = 100 * time.Millisecond
	movedAgain = time.Second
)

// moves are links that have moved, by ifindex, with containers to announce. Index 0 stands for all
// links.
type moves struct {
	mu  sync.Mutex
	due map[int]bool
}

func (m *moves) add(index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.due[index] = true
}

func (m *moves) take() map[int]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.due
	m.due = map[int]bool{}
	return taken
}

// announceMoved announces the containers on each trunk that moves to another switch port, until ctx
// ends.
func announceMoved(ctx context.Context, l *attach.Local, o Options) {
	m := &moves{due: map[int]bool{}}
	var watch sync.WaitGroup
	watch.Go(func() { watchMoves(ctx, l, o, m) })
	defer watch.Wait()
	again := map[int]time.Time{} // when a link is to be announced once more
	ticks := time.NewTicker(movedPause)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		due := map[int]bool{}
		for index, at := range again {
			if time.Now().After(at) {
				due[index] = true
				delete(again, index)
			}
		}
		for index := range m.take() {
			due[index], again[index] = true, time.Now().Add(movedAgain)
		}
		if len(due) > 0 {
			announce(ctx, l, o, due)
		}
	}
}

// watchMoves adds each link that has moved. After an error it adds all links: netlink messages may
// be lost.
func watchMoves(ctx context.Context, l *attach.Local, o Options, m *moves) {
	for ctx.Err() == nil {
		err := l.Host.MovedLinks(ctx, m.add)
		if err == nil {
			continue
		}
		o.Log.Error("cannot see whether bonds change their port: announcing all containers", "err", err)
		m.add(0)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// announce announces the containers on trunks, by ifindex; 0: on all.
func announce(ctx context.Context, l *attach.Local, o Options, trunks map[int]bool) {
	n, err := l.AnnounceMoved(ctx, trunks)
	if n > 0 {
		o.Log.Info("announced containers: their trunk moved to another switch port", "attachments", n)
	}
	if err != nil && ctx.Err() == nil {
		o.Log.Error("cannot announce containers after their trunk moved", "err", err)
	}
}
