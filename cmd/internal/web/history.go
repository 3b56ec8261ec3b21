package web

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/verify"
)

// The history is an hour in samples of 10 s, in memory. With the most attachments it needs 12 MB.
const (
	sampleInterval = 10 * time.Second
	samples        = int(time.Hour / sampleInterval)
	maxHistories   = 1024
)

// A point is one sample of one attachment.
type point struct {
	code      verify.Code // "": no sample
	anomalies uint32      // frames since the sample before
	rtt       float32     // seconds; 0: no answer
	bytes     float32     // per second, both directions
}

// A series is the history of one attachment. Point i is of the same time in all series.
type series struct {
	points    [samples]point
	anomalies uint64 // at the last sample
	bytes     uint64
	counted   bool // bytes and anomalies are set
}

// history has the samples of the last hour. It is safe for concurrent use.
type history struct {
	mu     sync.Mutex
	next   int                // index of the next sample
	series map[string]*series // by attachment
	at     time.Time          // of the last sample
	sparks map[string]plot    // small plots, by attachment; those that were drawn since the last sample
}

func newHistory() *history { return &history{series: map[string]*series{}, sparks: map[string]plot{}} }

// last returns the time of the last sample.
func (h *history) last() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

// add adds a sample. worst has the worst verdicts since the sample before, by attachment. The history of
// an attachment that is gone goes with it.
func (h *history) add(now time.Time, rows []overview.Row, worst map[string]verify.Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	elapsed := now.Sub(h.at)
	present := map[string]bool{}
	for _, r := range rows {
		s := h.series[r.Attachment]
		if s == nil && len(h.series) < maxHistories {
			s = &series{}
			h.series[r.Attachment] = s
		}
		if s == nil || present[r.Attachment] {
			continue // its containers share the interface
		}
		present[r.Attachment] = true
		s.points[h.next] = s.point(r, elapsed)
		s.points[h.next].code = worse(r.Verdict, worst[r.Attachment])
	}
	maps.DeleteFunc(h.series, func(id string, _ *series) bool { return !present[id] })
	h.next, h.at = (h.next+1)%samples, now
	clear(h.sparks)
}

// miss adds a sample without points, of a time at which nothing could be read.
func (h *history) miss(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.series {
		s.points[h.next] = point{}
	}
	h.next, h.at = (h.next+1)%samples, now
	clear(h.sparks)
}

// point returns a sample of a row, and keeps its counters.
func (s *series) point(r overview.Row, elapsed time.Duration) point {
	p := point{code: r.Verdict, rtt: float32(r.RTT.Seconds())}
	frames := overview.AnomalyFrames(r)
	if s.counted && frames > s.anomalies {
		p.anomalies = uint32(min(frames-s.anomalies, math.MaxUint32))
	}
	s.anomalies = frames
	var bytes uint64
	if r.Counters != nil {
		bytes = r.Counters.OutBytes + r.Counters.InBytes
	}
	if s.counted && bytes >= s.bytes && elapsed > 0 {
		p.bytes = float32(float64(bytes-s.bytes) / elapsed.Seconds())
	}
	s.bytes, s.counted = bytes, true
	return p
}

// of returns the points of an attachment, the oldest first. There are always as many; those before
// its start have no code.
func (h *history) of(attachment string) []point {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.points(attachment)
}

func (h *history) points(attachment string) []point {
	s := h.series[attachment]
	if s == nil {
		return make([]point, samples)
	}
	return slices.Concat(s.points[h.next:], s.points[:h.next])
}

// spark returns a small plot of an attachment.
func (h *history) spark(attachment string) plot {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.sparks[attachment]
	if !ok {
		d = draw(coarse(h.points(attachment), sparkSamples))
		h.sparks[attachment] = d
	}
	return d
}
