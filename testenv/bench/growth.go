package main

import (
	"fmt"
	"math"
)

// growth measures how the cost of an attach grows with the number of macvlans on a trunk: the
// kernel keeps them in a table of 256 lists, copies each broadcast to all of them, and lists all of
// them in a dump. A veth as the trunk can have a thousand at the most: the copies, and the frame
// itself, pass a queue of a thousand (net.core.netdev_max_backlog) before the gateway's namespace
// gets it.
func growth(w *world, _ options, r *results) error {
	const most, window, subject = 1000, 20, "1000 on one trunk"
	c := w.contenders()[0]
	made, err := w.newContainers(most)
	defer endAll(made)
	if err != nil {
		return err
	}
	var took []sample
	var t trace
	for i, one := range made {
		v := c.attach(one)
		run := v.run
		if i >= most-window {
			run = func() (sample, error) { return t.attach(v) }
		}
		s, err := run()
		if err != nil {
			return err
		}
		took = append(took, s)
	}
	const early, late = "1st to 20th", "981st to 1000th"
	r.add(subject, early, took[:window])
	r.add(subject, late, took[most-window:])
	r.compare(subject, late, early, 1.5)
	grows := curve{Title: "attach", X: "containers on the trunk", Name: ours}
	for at := window; at <= most; at += most / window {
		grows.Points = append(grows.Points, point{float64(at), medianWall(took[at-window : at])})
	}
	r.Curves = append(r.Curves, grows)
	if err := w.proven(); err != nil {
		return err
	}
	for i, s := range r.Steps {
		r.Steps[i].Late = median(t.took[s.Name])
	}
	return w.clear(c, made)
}

func medianWall(samples []sample) float64 {
	walls := make([]float64, len(samples))
	for i, s := range samples {
		walls[i] = millis(s.wall)
	}
	return median(walls)
}

// atOnce measures how long one of several concurrent attaches takes: they wait for the database,
// and for the RTNL in the kernel.
func atOnce(w *world, _ options, r *results) error {
	const count = 64
	all := []contender{w.contenders()[0], w.contenders()[2]}
	curves := make([]curve, len(all))
	for i, c := range all {
		curves[i] = curve{Title: "attach, total over count", X: "hooks at once", Name: c.name}
	}
	for at := 1; at <= count; at *= 4 {
		for i, c := range all {
			s, err := w.crowd(c, count, at)
			if err != nil {
				return fmt.Errorf("%s, %d at once: %w", c.name, at, err)
			}
			curves[i].Points = append(curves[i].Points, point{float64(at), millis(s.wall) / count})
		}
	}
	r.Curves = append(r.Curves, curves...)
	return nil
}

// ticks returns the marks of an axis up to most, in steps of a power of ten, or of half of one.
func ticks(most float64) (list []float64) {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	if most/step < 2.5 {
		step /= 2
	}
	for x := 0.0; x <= most; x += step {
		list = append(list, x)
	}
	return list
}
