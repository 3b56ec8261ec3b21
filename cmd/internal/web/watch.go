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
	"github.com/lanyard-net/lanyard/hook"
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
	// as long as they took, and hurryFactor if a verdict has changed. A container can change its own
	// verdict all the time.
	idleFactor  = 10
	hurryFactor = 3
	// readTimeout limits one reading: it waits for the database like every command.
	readTimeout = 10 * time.Second
)

// waitMost is how long a request waits for a newer view.
const waitMost = 2 * refreshInterval

// view is what pages show at one time. It is not changed after it was published.
type view struct {
	version uint64
	at      time.Time // when host and rows were read
	tried   time.Time // of the last reading, later than at if it failed
	host    *overview.Node
	rows    []overview.Row
	failed  error // why something could not be read
}

// watch reads the state of the host and has gateways asked: often while a page is open, for the history
// otherwise.
type watch struct {
	lanyard *wiring.Lanyard
	ports   *ports
	log     *slog.Logger
	prober  *prober
	history *history
	turn    chan struct{} // has an element while an answer is made

	readNow, askNow chan struct{} // end a pause
	lastSeen        atomic.Int64  // time of the last request, by UnixNano

	mu    sync.Mutex
	now   *view             // nil before the first reading
	newer chan struct{}     // closed when now is replaced
	recs  []hook.Attachment // of the last reading

	// Used by run only.
	seen      []byte    // what a newer view must differ from
	unread    string    // the last error that was logged
	refreshed time.Time // when rates were computed
	before    []overview.Row
	rates     overview.Rates
}

func newWatch(l *wiring.Lanyard, heard lldp.Memory, log *slog.Logger) *watch {
	w := &watch{
		lanyard: l, ports: newPorts(heard, log), log: log, newer: make(chan struct{}), history: newHistory(),
		readNow: make(chan struct{}, 1), askNow: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	w.prober = newProber(l, func() { signal(w.readNow) })
	return w
}

// signal ends a pause, or the next one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told already
	}
}

// run reads and asks until ctx ends.
func (w *watch) run(ctx context.Context) {
	var asking sync.WaitGroup
	asking.Go(func() { w.ask(ctx) })
	asking.Go(func() { w.ports.run(ctx) })
	defer asking.Wait()
	for ctx.Err() == nil {
		started := time.Now()
		w.sample(ctx)
		took := time.Since(started)
		pause(ctx, hurryFactor*took, max(w.interval(), idleFactor*took), w.readNow)
	}
}

// ask has the gateways of attachments asked until ctx ends, and waits for the answers.
func (w *watch) ask(ctx context.Context) {
	defer w.prober.rounds.Wait()
	for ctx.Err() == nil {
		w.mu.Lock()
		recs := w.recs
		w.mu.Unlock()
		w.prober.turn(ctx, recs)
		pause(ctx, watchedInterval, w.interval(), w.askNow)
	}
}

// interval returns the time from one reading to the next, and from one turn of questions to the next.
func (w *watch) interval() time.Duration {
	if time.Since(time.Unix(0, w.lastSeen.Load())) < watchedFor {
		return watchedInterval
	}
	return sampleInterval
}

// pause waits for most, and at least for least: it ends with a signal.
func pause(ctx context.Context, least, most time.Duration, wake <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(least):
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-time.After(most - least):
	}
}

// sample reads, publishes, and adds a sample to the history if it is due.
func (w *watch) sample(ctx context.Context) {
	now := time.Now()
	due := now.Sub(w.history.last()) >= sampleInterval
	rows, err := w.read(ctx)
	switch {
	case due && err == nil:
		w.history.add(now, rows, w.prober.takeWorst())
	case due:
		w.history.miss(now)
	}
}

// read reads and publishes. After an error the view has the rows of before, and the error.
func (w *watch) read(ctx context.Context) ([]overview.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r, unread, err := overview.Read(ctx, w.lanyard)
	w.logUnread(errors.Join(err, unread))
	if err != nil {
		w.publish(w.unchanged(r.At, err))
		return nil, err
	}
	w.mu.Lock()
	w.recs = r.Records
	w.mu.Unlock()
	w.prober.apply(r.Rows)
	host := overview.Draw(w.lanyard, w.ports.of, r.Rows)
	w.publish(&view{at: r.At, tried: r.At, rows: r.Rows, host: host, failed: unread})
	return r.Rows, nil
}

// logUnread logs an error once, not with each reading that has it.
func (w *watch) logUnread(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.unread && err != nil {
		w.log.Error("cannot read all that the page shows", "err", err)
	}
	w.unread = text
}

// unchanged returns the view after a reading that failed: what was read before it.
func (w *watch) unchanged(tried time.Time, failed error) *view {
	v := &view{tried: tried, failed: failed}
	if w.now != nil {
		v.at, v.host, v.rows = w.now.at, w.now.host, w.now.rows
	}
	return v
}

// publish makes v the view that pages show, with rates, if it differs from the last one or that is old.
func (w *watch) publish(v *view) {
	seen, err := json.Marshal(struct {
		Host   *overview.Node
		Failed string
	}{v.host, fmt.Sprint(v.failed)})
	if err == nil && bytes.Equal(seen, w.seen) && v.tried.Sub(w.now.tried) < refreshInterval {
		return
	}
	w.seen = seen
	if v.at.Equal(v.tried) { // else, pages show this host already, with its rates
		w.addRates(v)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v.version = uint64(v.tried.UnixNano())
	w.now = v
	close(w.newer)
	w.newer = make(chan struct{})
}

// addRates adds the rates to a view, new ones if those are old.
func (w *watch) addRates(v *view) {
	if elapsed := v.at.Sub(w.refreshed); elapsed >= refreshInterval {
		w.rates = overview.RatesOf(w.before, v.rows, elapsed)
		w.before, w.refreshed = v.rows, v.at
	}
	v.host.AddRates(w.rates)
}

// view returns what to show. It waits for another version than after, and for a reading if the last
// one is from a time at which no page was open. It returns nil if nothing was read yet.
func (w *watch) view(ctx context.Context, after uint64) *view {
	before := w.lastSeen.Swap(time.Now().UnixNano())
	if time.Since(time.Unix(0, before)) >= watchedFor {
		signal(w.readNow)
		signal(w.askNow)
	}
	timeout := time.NewTimer(waitMost)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		v, newer := w.now, w.newer
		w.mu.Unlock()
		if v != nil && v.version != after && time.Since(v.tried) < watchedFor {
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
