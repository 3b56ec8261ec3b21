//go:build vm

package matrix

import (
	"sync/atomic"
	"time"
)

// An emulated machine on a busy host stalls now and then, for longer than the deadlines under test.
// The result of an attach during a stall proves nothing.
const (
	tick  = 10 * time.Millisecond
	stall = 100 * time.Millisecond // a tick that takes this much longer is a stall
)

var lastStallEnd atomic.Int64 // time of its end

// recordStalls never returns: it is started once.
func recordStalls() {
	for {
		start := time.Now()
		time.Sleep(tick)
		if time.Since(start) > tick+stall {
			lastStallEnd.Store(time.Now().UnixNano())
		}
	}
}

// attachRetryingStalls attaches until the outcome is right, or the machine did not stall: at most
// four times. It returns the number of repetitions.
func (b *bench) attachRetryingStalls(c cell, right func(outcome) bool) (o outcome, again int, err error) {
	b.tb.Helper()
	for ; ; again++ {
		start := time.Now().UnixNano()
		o, err = b.attachCell(c)
		if err == nil && right(o) || again == 3 || lastStallEnd.Load() < start {
			return o, again, err
		}
		b.tb.Logf("the machine stalled: %s got %s, %v", c, o.verdict.Code, err)
	}
}
