// Package bpf watches trunks with a tc program: which VLAN tags the frames of
// leased MACs carry, who answers for their gateways, who else claims their
// addresses. It stops frames with tags that are not their network's. Programs
// and maps are pinned, so that they go on when the process that put them there
// has ended, and are loaded once per trunk; a container's start only writes to
// the maps. Kernels from 5.10 on will do.
//
// It draws no conclusions: the verdict is package verify's. Which endpoints there
// are is the caller's to know.
package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// Options say where the pins are and how programs are attached.
type Options struct {
	// Root is the directory of the pins, such as /sys/fs/bpf/lanyard. It is made
	// with mode 0700 when the first trunk is prepared, its parent must be on a
	// bpffs, and is removed with the last trunk. It belongs to one network
	// namespace: trunks are told apart by ifindex.
	Root string
	// Legacy attaches by clsact even where the kernel has TCX.
	Legacy bool
}

// Datapath is the tc programs and maps below one root. Its methods may be called
// from any goroutine whose thread is in the trunks' network namespace; all but
// Prepare and Release from any other as well.
type Datapath struct {
	root   root
	legacy bool

	mu     sync.Mutex
	trunks map[int]*trunk // opened so far
	emit   int            // the program's descriptor; 0 until somebody sends
}

var _ verify.Datapath = (*Datapath)(nil)

// New gives a datapath that has touched nothing yet.
func New(o Options) *Datapath {
	return &Datapath{root: root(filepath.Clean(o.Root)), legacy: o.Legacy, trunks: map[int]*trunk{}}
}

// Close lets go of what was opened. What is watched stays watched.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ifindex := range d.trunks {
		d.closeTrunk(ifindex)
	}
	return d.closeEmitter()
}

// probeTime is for how long after Prepare and Expect times are exact: who calls them
// is about to probe there, for a minute at the most, and has to tell the answers to
// its own questions from those that came before.
const exactClockTime = 90 * time.Second

// Prepare makes sure that the trunk with that ifindex is watched. Where it is,
// this takes some tens of microseconds; else the program is loaded, which is once
// per trunk, put back where somebody took it off, or put in the place of an earlier
// edition, whose counters go on.
func (d *Datapath) Prepare(ifindex int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, err := d.open(ifindex); err == nil && t != nil && exists(filepath.Join(t.path, editionMark(edition))) {
		if on, err := t.attached(); on && err == nil {
			// No lock is held: somebody may have released the trunk meanwhile.
			if err := t.useExactClock(exactClockTime); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	lock, err := d.root.lock(true)
	if err != nil {
		return err
	}
	defer lock.Close()
	d.closeTrunk(ifindex)
	if err := d.root.ensureTrunk(ifindex); err != nil {
		return errors.Join(err, d.root.removeEmpty())
	}
	failpoint("bpf-named")
	t, err := d.open(ifindex)
	if err != nil {
		return err
	}
	if t == nil {
		return fmt.Errorf("watch trunk %s: its pins were removed meanwhile", nameOf(ifindex))
	}
	if err := errors.Join(t.upgrade(), t.useExactClock(exactClockTime)); err != nil {
		return err
	}
	return t.attach(d.legacy)
}

// exactly has the program look at the clock for each time that it notes, for so long.
func (m *maps) useExactClock(d time.Duration) error {
	if err := m.times.put(0, &wireClock{ExactUntil: uint64(verify.Now()) + uint64(d)}); err != nil {
		return fmt.Errorf("ask for exact times: %w", err)
	}
	return nil
}

// open gives a trunk's pins, nil if there are none. Those that are open already
// are opened anew where others have taken their place.
func (d *Datapath) open(ifindex int) (*trunk, error) {
	if t := d.trunks[ifindex]; t != nil {
		if t.current() {
			return t, nil
		}
		d.closeTrunk(ifindex)
	}
	t, err := d.root.open(ifindex)
	if t != nil {
		d.trunks[ifindex] = t
	}
	return t, err
}

func (d *Datapath) closeTrunk(ifindex int) {
	if t := d.trunks[ifindex]; t != nil {
		t.close()
		delete(d.trunks, ifindex)
	}
}

// Release takes the program off a trunk, and its pins with it, if no endpoint is
// left on it: otherwise all stays as it is. Nothing there is no error.
func (d *Datapath) Release(ifindex int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock, err := d.root.lock(false)
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Close()
		used, err := d.hasEndpoints(ifindex)
		if used || err != nil {
			return err
		}
		d.closeTrunk(ifindex)
	}
	// Without pins there may still be a filter of ours.
	if err := d.root.detach(ifindex); err != nil || lock == nil {
		return err
	}
	failpoint("bpf-detached")
	return d.root.removeTrunk(ifindex)
}

// used reports whether a trunk that is there has endpoints. The lock is held.
func (d *Datapath) hasEndpoints(ifindex int) (bool, error) {
	alive, err := pins{path: d.root.trunkDir(ifindex), ifindex: ifindex}.alive()
	if !alive || err != nil {
		return false, err
	}
	t, err := d.open(ifindex)
	if errors.Is(err, fs.ErrNotExist) || err == nil && t == nil {
		return false, nil
	}
	if err == nil {
		err = t.checkNetns()
	}
	if err != nil {
		return false, err
	}
	return t.hasEndpoints()
}

// Expect tells which tags to expect from e.MAC.
func (d *Datapath) Expect(e verify.Endpoint) error {
	return d.withTrunk(e.Trunk, func(t *trunk) error {
		if t == nil {
			return fmt.Errorf("expect %s: trunk %s is not watched", e.MAC, nameOf(e.Trunk))
		}
		if err := errors.Join(t.expect(e), t.useExactClock(exactClockTime)); err != nil {
			return fmt.Errorf("expect %s on trunk %s: %w", e.MAC, nameOf(e.Trunk), err)
		}
		return nil
	})
}

// Settle tells that e's addresses are in use from now on.
func (d *Datapath) MarkInUse(e verify.Endpoint) error {
	return d.withTrunk(e.Trunk, func(t *trunk) error {
		p, err := tagKeyOf(e.Tags)
		if t == nil || err != nil {
			return err
		}
		for _, a := range e.Addrs {
			err = errors.Join(err, t.markInUse(p, e.MAC, a))
		}
		if err != nil {
			return fmt.Errorf("settle %s on trunk %s: %w", e.MAC, nameOf(e.Trunk), err)
		}
		return nil
	})
}

// Forget ends the watch of e. Where its place is another attachment's by now,
// that one is left alone.
func (d *Datapath) Forget(e verify.Endpoint) error {
	return d.withTrunk(e.Trunk, func(t *trunk) error {
		if t == nil {
			return nil
		}
		if err := t.forget(e); err != nil {
			return fmt.Errorf("forget %s on trunk %s: %w", e.MAC, nameOf(e.Trunk), err)
		}
		return nil
	})
}

// with runs f while nobody else changes the trunk's endpoints; t is nil where
// nothing is pinned for it.
func (d *Datapath) withTrunk(ifindex int, f func(t *trunk) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock, err := d.root.lock(false)
	if err != nil {
		return err
	}
	if lock == nil {
		return f(nil)
	}
	defer lock.Close()
	t, err := d.open(ifindex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f(t)
}
