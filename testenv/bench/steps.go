package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A step is a part of an attach (LANYARD_TRACE=1), with its median time.
type step struct {
	Name   string  `json:"step"`
	Millis float64 `json:"median_ms"`
	// Late is the median with a thousand containers on the trunk; 0 if that was not measured.
	Late float64 `json:"late_ms,omitzero"`
}

// messenger is the step of the hook's own process: its start, the connection to the service, and its
// end.
const messenger = "messenger"

// A trace is what the service has measured, for several attaches, and what remains of the hook's time.
type trace struct {
	names []string
	took  map[string][]float64
}

// attach attaches with the trace switched on, and adds the steps' times.
func (t *trace) attach(v invocation) (sample, error) {
	v.env = append(v.env, "LANYARD_TRACE=1")
	s, output, err := v.runFor(true)
	if err != nil {
		return s, err
	}
	if t.took == nil {
		t.took = map[string][]float64{}
	}
	sum := 0.0
	for line := range strings.Lines(output) {
		f := strings.Fields(line)
		if len(f) != 4 || f[0] != "lanyard-trace:" {
			continue
		}
		ms, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return s, fmt.Errorf("read the trace: %w", err)
		}
		t.add(f[1], ms)
		sum = ms // the last line has the sum
	}
	t.add(messenger, millis(s.wall)-sum)
	return s, nil
}

func (t *trace) add(name string, ms float64) {
	if t.took[name] == nil {
		t.names = append(t.names, name)
	}
	t.took[name] = append(t.took[name], ms)
}

// stepsOf measures how long each step of an attach takes.
func stepsOf(w *world, o options, r *results) error {
	runs := 60
	if o.quick {
		runs = 20
	}
	made, err := w.newContainers(runs)
	defer endAll(made)
	if err != nil {
		return err
	}
	c, t := w.contenders()[0], trace{}
	for _, one := range made {
		if _, err := t.attach(c.attach(one)); err != nil {
			return err
		}
	}
	for _, name := range t.names {
		r.Steps = append(r.Steps, step{Name: name, Millis: median(t.took[name])})
	}
	return w.clear(c, made)
}
