//go:build vm

package matrix

import (
	"sync/atomic"
	"time"
)

// An emulated machine on a busy one stands still now and then, for longer than the
// deadlines of what is tested here: whatever came of an attach meanwhile shows nothing.
const (
	tick  = 10 * time.Millisecond
	stall = 100 * time.Millisecond // a tick that took this much longer
)

var lastStall atomic.Int64 // when it ended

// watchStalls never ends: it is started once.
func watchStalls() {
	for {
		start := time.Now()
		time.Sleep(tick)
		if time.Since(start) > tick+stall {
			lastStall.Store(time.Now().UnixNano())
		}
	}
}

// steadily attaches until the outcome is right, or the machine did not stand still
// meanwhile: at most four times. It gives how many times more than once.
func (b *bench) steadily(c cell, right func(outcome) bool) (o outcome, again int, err error) {
	b.tb.Helper()
	for ; ; again++ {
		start := time.Now().UnixNano()
		o, err = b.attach(c)
		if err == nil && right(o) || again == 3 || lastStall.Load() < start {
			return o, again, err
		}
		b.tb.Logf("the machine stood still: %s came to %s, %v", c, o.verdict.Code, err)
	}
}
