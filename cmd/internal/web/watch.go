package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

const (
	// watchedInterval is the interval of readings and questions while a page is open, and
	// sampleInterval while none is. A silent gateway has a second to answer.
	watchedInterval = 500 * time.Millisecond
	// watchedFor is how long a page counts as open after its last request.
	watchedFor = 5 * time.Second
	// refreshInterval is the interval of new rates and times for pages, if nothing else is new.
	refreshInterval = 2 * time.Second
	// idleFactor limits the share of a processor that readings take: they pause for this many times
	// as long as they took.
	idleFactor = 10
	// readTimeout limits one reading: it waits for the database like every command.
	readTimeout = 10 * time.Second
)

// waitMost is how long a request waits for a newer view.
const waitMost = 2 * refreshInterval

// view is what pages show at one time. It is not changed after it was published.
type view struct {
	version uint64
	at      time.Time
	host    *overview.Node
	rows    []overview.Row
	failed  error // why something could not be read
}

// watch reads the state of the host and has gateways asked: often while a page is open, for the history
// otherwise.
type watch struct {
	lanyard *wiring.Lanyard
	heard   lldp.Memory
	log     *slog.Logger
	prober  *prober
	history *history

	wake     chan struct{} // a page was opened, or a verdict has changed
	lastSeen atomic.Int64  // time of the last request, by UnixNano

	mu    sync.Mutex
	now   *view         // nil before the first reading
	newer chan struct{} // closed when now is replaced

	// Used by run only.
	asked     time.Time // the last turn of questions
	seen      []byte    // what a newer view must differ from
	refreshed time.Time // when rates were computed
	before    []overview.Row
	rates     overview.Rates
}

func newWatch(l *wiring.Lanyard, heard lldp.Memory, log *slog.Logger) *watch {
	wake := make(chan struct{}, 1)
	return &watch{
		lanyard: l, heard: heard, log: log, wake: wake, newer: make(chan struct{}),
		prober:  newProber(l, wake),
		history: newHistory(),
	}
}

// run reads and asks until ctx ends.
func (w *watch) run(ctx context.Context) {
	defer w.prober.rounds.Wait()
	for ctx.Err() == nil {
		started := time.Now()
		w.turn(ctx)
		took := time.Since(started)
		interval := w.interval()
		w.pause(ctx, took, max(interval, idleFactor*took))
	}
}

// interval returns the time from one reading to the next.
func (w *watch) interval() time.Duration {
	if time.Since(time.Unix(0, w.lastSeen.Load())) < watchedFor {
		return watchedInterval
	}
	return sampleInterval
}

// pause waits for most, and at least for least: it ends when there is a reason for a reading.
func (w *watch) pause(ctx context.Context, least, most time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(least):
	}
	select {
	case <-ctx.Done():
	case <-w.wake:
	case <-time.After(most - least):
	}
}

// turn reads, publishes, starts questions and adds a sample, each if it is due.
func (w *watch) turn(ctx context.Context) {
	now := time.Now()
	sampling := now.Sub(w.history.last()) >= sampleInterval
	r, err := w.read(ctx)
	if err != nil {
		if sampling {
			w.history.miss(now)
		}
		return
	}
	if sampling {
		w.history.add(now, r.Rows, w.prober.takeWorst())
	}
	if now.Sub(w.asked) >= w.interval() {
		w.asked = now
		w.prober.turn(ctx, r.Records)
	}
}

// read reads and publishes. After an error the view has the rows of before, and the error.
func (w *watch) read(ctx context.Context) (overview.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r, changes, err := overview.Read(ctx, w.lanyard)
	v := &view{at: r.At, failed: errors.Join(err, changes)}
	if v.failed != nil {
		w.log.Error("cannot read all that the page shows", "err", v.failed)
	}
	if err != nil {
		if w.now != nil {
			v.host, v.rows = w.now.host, w.now.rows
		}
		w.publish(v)
		return r, err
	}
	w.prober.apply(r.Rows)
	v.rows, v.host = r.Rows, overview.Draw(w.lanyard, w.heard, r.Rows)
	w.publish(v)
	return r, nil
}

// publish makes v the view that pages show, with rates, if it differs from the last one or its rates are
// old.
func (w *watch) publish(v *view) {
	seen, err := json.Marshal(struct {
		Host   *overview.Node
		Failed string
	}{v.host, fmt.Sprint(v.failed)})
	elapsed := v.at.Sub(w.refreshed)
	if err == nil && bytes.Equal(seen, w.seen) && elapsed < refreshInterval {
		return
	}
	w.seen = seen
	if elapsed >= refreshInterval {
		w.rates = overview.RatesOf(w.before, v.rows, elapsed)
		w.before, w.refreshed = v.rows, v.at
	}
	if v.host != nil {
		v.host.AddRates(w.rates)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v.version = uint64(v.at.UnixNano())
	w.now = v
	close(w.newer)
	w.newer = make(chan struct{})
}

// view returns what to show. It waits for another version than after, and for a reading if the last
// one is from a time at which no page was open. It returns nil if nothing was read yet.
func (w *watch) view(ctx context.Context, after uint64) *view {
	before := w.lastSeen.Swap(time.Now().UnixNano())
	if time.Since(time.Unix(0, before)) >= watchedFor {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	timeout := time.NewTimer(waitMost)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		v, newer := w.now, w.newer
		w.mu.Unlock()
		if v != nil && v.version != after && time.Since(v.at) < watchedFor {
			return v
		}
		select {
		case <-newer:
		case <-timeout.C:
			return v
		case <-ctx.Done():
			return v
		}
	}
}
