package hook

import (
	"slices"
	"time"
)

// Step is what one part of an attach took, from the end of the one before it.
type Step struct {
	Name string        `json:"step"`
	Took time.Duration `json:"took_ns"`
}

// Trace notes how long the steps of attaches take, one attach after the other,
// for an operator who wants to know where a slow start went. A nil one notes
// nothing, and costs nothing.
type Trace struct {
	Steps []Step
	last  time.Time
}

// NewTrace gives a trace whose first step begins now.
func NewTrace() *Trace { return &Trace{last: time.Now()} }

// Mark ends a step.
func (t *Trace) Mark(step string) {
	if t == nil {
		return
	}
	now := time.Now()
	t.Steps = append(t.Steps, Step{step, now.Sub(t.last)})
	t.last = now
}

// since gives the steps after the first n, for a record to keep.
func (t *Trace) since(n int) []Step {
	if t == nil {
		return nil
	}
	return slices.Clone(t.Steps[n:])
}

// count is how many steps there are.
func (t *Trace) count() int {
	if t == nil {
		return 0
	}
	return len(t.Steps)
}

// reached ends a step of an attach, and is where a test can have it all end.
func (t *attempt) reached(step string) {
	t.r.Trace.Mark(step)
	failpoint(step)
}
