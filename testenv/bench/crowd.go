package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// crowds measures many concurrent attaches, as on a host that boots.
func crowds(w *world, o options, r *results) error {
	count, at, rounds := 192, 32, 5
	if o.quick {
		rounds = 2
	}
	all := slices.DeleteFunc(w.contenders(), func(c contender) bool { return c.alone })
	took := make([][]sample, len(all))
	for n := range rounds {
		for k := range all {
			i := (k + n) % len(all)
			s, err := w.crowd(all[i], count, at)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			took[i] = append(took[i], s)
		}
	}
	subject := fmt.Sprintf("%d attaches, %d at once", count, at)
	for i, c := range all {
		r.add(subject, c.name, took[i])
	}
	r.compare(subject, ours, cni, 0.27)
	r.compare(subject, ours, netavark, 0.9)
	return nil
}

// crowd attaches count containers, at most at of them concurrently. It returns the total time.
func (w *world) crowd(c contender, count, at int) (total sample, err error) {
	made, err := w.newContainers(count)
	defer endAll(made)
	if err != nil {
		return total, err
	}
	next := make(chan *container, count)
	for _, one := range made {
		next <- one
	}
	close(next)
	errs := make(chan error, at)
	var cpu sync.Mutex
	began := time.Now()
	for range at {
		go func() {
			var err error
			for one := range next {
				var s sample
				if s, err = c.attach(one).run(); err != nil {
					break
				}
				cpu.Lock()
				total.cpu += s.cpu
				cpu.Unlock()
			}
			errs <- err
		}()
	}
	for range at {
		if e := <-errs; err == nil {
			err = e
		}
	}
	total.wall = time.Since(began)
	if err != nil {
		return total, err
	}
	return total, w.clear(c, made)
}

// clearAtOnce is the number of concurrent detaches: CNI and netavark wait for RCU, and one wait
// serves several.
const clearAtOnce = 16

// clear detaches and ends containers. That is not measured.
func (w *world) clear(c contender, made []*container) error {
	if c.late {
		endAll(made)
	}
	if c.detach != nil {
		var all errgroup.Group
		all.SetLimit(clearAtOnce)
		for _, one := range made {
			all.Go(func() error {
				_, err := c.detach(one).run()
				return err
			})
		}
		if err := all.Wait(); err != nil {
			return err
		}
	}
	endAll(made)
	return w.drain()
}
