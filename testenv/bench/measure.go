package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// subjects are in the order in which they are measured. The slow ones measure growth, and are not
// part of a quick run.
var subjects = []struct {
	name    string
	slow    bool
	measure func(*world, options, *results) error
}{
	{"attach", false, attaches},
	{"steps", false, stepsOf},
	{"runc", false, runcs},
	{"crowd", false, crowds},
	{"frames", false, frames},
	{"throughput", false, throughput},
	{"claims", false, claims},
	{"docker", false, dockers},
	{"dhcp", false, dhcps},
	{"vlans", true, vlans},
	{"atonce", true, atOnce},
	{"growth", true, growth},
}

func measureAll(o options) error {
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer w.gateway.end()
	if err := w.startService(); err != nil {
		return err
	}
	defer w.stopService()
	r := &results{Quick: o.quick, Machine: thisMachine(w)}
	var failed []error
	for _, s := range subjects {
		asked := o.only == "" && (!s.slow || !o.quick)
		if o.only != "" {
			asked = strings.Contains(","+o.only+",", ","+s.name+",")
		}
		if !asked {
			continue
		}
		began := time.Now()
		if err := s.measure(w, o, r); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, err))
			r.Missing = append(r.Missing, fmt.Sprintf("%s: %s", s.name, strings.ReplaceAll(err.Error(), "\n", " ")))
		}
		fmt.Fprintf(os.Stderr, "bench: %s measured in %s\n", s.name, time.Since(began).Round(time.Second))
	}
	if _, err := os.Stdout.WriteString(r.markdown()); err != nil {
		return err
	}
	if o.out != "" {
		err = r.write(o.out)
	}
	if o.docs != "" {
		err = errors.Join(err, r.updateDocs(o.docs))
	}
	if o.check != "" {
		err = errors.Join(err, r.check(o.check))
	}
	return errors.Join(append(failed, err)...)
}

// batch is how many containers each contender has at a time. For all contenders, the costs grow
// with the number of macvlans on a trunk; a host usually has a few dozen.
const batch = 10

// attaches measures attach and detach of all contenders, in turn.
func attaches(w *world, o options, r *results) error {
	batches := 20
	if o.quick {
		batches = 5
	}
	idle, err := w.service.rss()
	if err != nil {
		return err
	}
	all := append(w.contenders(), w.guarded(),
		w.netavark(oldNetavark, w.lans[oldNetavark], w.netavarkFile, "host-local"),
		contender{name: oursCNI, attach: w.lanyardCNI("ADD"), detach: w.lanyardCNI("DEL")})
	if err := w.inTurns(all, batches, r, "attach", "detach"); err != nil {
		return err
	}
	r.compare("attach", ours, cni, 0.33)
	r.compare("attach", oursCNI, cni, 0.5)
	r.compare("attach", ours, netavark, 0.85)
	r.compare("attach", ours, floor, 0.9)
	r.compare("attach", alone, cni, 0.73)
	r.compare("attach", alone, former, 1.1)
	r.compare("detach", ours, cni, 0.12)
	r.compare("detach", ours, netavark, 0)
	r.compare("attach", guarded, cni, 0.5)
	r.most("RSS of the idle service, MiB", idle, 25)
	return w.memory(all, r)
}

// inTurns measures attach and detach of contenders in turn, and adds both.
func (w *world) inTurns(all []contender, batches int, r *results, attached, detached string) error {
	attach, detach := make([][]sample, len(all)), make([][]sample, len(all))
	for b := -1; b < batches; b++ { // the first batch warms up, and is not counted
		got, gone, err := w.oneBatch(all, b)
		if err != nil {
			return err
		}
		if b < 0 {
			continue
		}
		for i := range all {
			attach[i], detach[i] = append(attach[i], got[i]...), append(detach[i], gone[i]...)
		}
	}
	for i, c := range all {
		r.add(attached, c.name, attach[i])
		if c.detach != nil {
			r.add(detached, c.name, detach[i])
		}
	}
	return nil
}

// oneBatch attaches containers of every contender in turn, then detaches them. Each turn begins
// with another contender.
func (w *world) oneBatch(all []contender, turn int) (attach, detach [][]sample, err error) {
	attach, detach = make([][]sample, len(all)), make([][]sample, len(all))
	made := make([][]*container, len(all))
	for i := range all {
		made[i], err = w.newAll(all[i], batch)
		defer endAll(made[i])
		if err != nil {
			return nil, nil, err
		}
	}
	each := func(f func(i int, c *container) error) error {
		for n := range batch {
			for k := range all {
				i := (k + n + max(turn, 0)) % len(all)
				if err := f(i, made[i][n]); err != nil {
					return fmt.Errorf("%s: %w", all[i].name, err)
				}
			}
		}
		return nil
	}
	if err := each(func(i int, c *container) error {
		s, err := w.run(all[i], all[i].attach(c))
		attach[i] = append(attach[i], s)
		return err
	}); err != nil {
		return nil, nil, err
	}
	if err := w.proven(); err != nil {
		return nil, nil, err
	}
	if err := each(func(i int, c *container) error {
		if all[i].detach == nil {
			return nil
		}
		if all[i].late {
			c.end()
		}
		s, err := w.run(all[i], all[i].detach(c))
		detach[i] = append(detach[i], s)
		return err
	}); err != nil {
		return nil, nil, err
	}
	for i := range all {
		endAll(made[i])
	}
	return attach, detach, w.drain()
}

// memory adds the peak memory of a few runs of each contender.
func (w *world) memory(all []contender, r *results) error {
	const runs = 5
	for _, c := range all {
		if c.rootless || c.alone {
			continue // the service's memory is not that of one start
		}
		made, err := w.newContainers(runs)
		defer endAll(made)
		if err != nil {
			return err
		}
		for _, one := range made {
			kib, err := c.attach(one).peakRSS()
			if err != nil {
				return err
			}
			s := r.find("attach", c.name)
			s.RSS = max(s.RSS, kib)
			if c.detach != nil && !c.late {
				if _, err := c.detach(one).run(); err != nil {
					return err
				}
			}
		}
		for _, one := range made {
			one.end()
			if c.late {
				if _, err := c.detach(one).run(); err != nil {
					return err
				}
			}
		}
	}
	if s := r.find("attach", ours); s != nil {
		r.most("peak RSS of lanyard-hook, MiB", float64(s.RSS)/1024, 3)
	}
	return w.drain()
}
