package hook

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Step is the duration of one step of an attach, from the end of the step before it.
type Step struct {
	Name string        `json:"step"`
	Took time.Duration `json:"took_ns"`
}

// Trace records how long the steps of attaches take, one attach after the other, so that an
// operator can find the slow step of a start. The methods of a nil Trace do nothing.
type Trace struct {
	Steps []Step
	last  time.Time
}

// NewTrace returns a trace; its first step begins now.
func NewTrace() *Trace { return &Trace{last: time.Now()} }

// Mark ends the current step and names it.
func (t *Trace) Mark(step string) {
	if t == nil {
		return
	}
	now := time.Now()
	t.Steps = append(t.Steps, Step{step, now.Sub(t.last)})
	t.last = now
}

// Since returns a copy of the steps after the first n.
func (t *Trace) Since(n int) []Step {
	if t == nil {
		return nil
	}
	return slices.Clone(t.Steps[n:])
}

// Count returns the number of steps.
func (t *Trace) Count() int {
	if t == nil {
		return 0
	}
	return len(t.Steps)
}

// String returns one line per step, and one for the sum.
func (t *Trace) String() string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	var sum time.Duration
	for _, s := range t.Steps {
		fmt.Fprintf(&b, "lanyard-trace: %-10s %8.3f ms\n", s.Name, s.Took.Seconds()*1e3)
		sum += s.Took
	}
	fmt.Fprintf(&b, "lanyard-trace: %-10s %8.3f ms\n", "sum", sum.Seconds()*1e3)
	return b.String()
}
