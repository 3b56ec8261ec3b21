// Package bpf watches trunks with tc programs: the VLAN tags that frames of leased MACs have, the
// stations that answer for their gateways, and the stations that claim their addresses. The
// programs drop frames with tags other than their network's. Programs and maps are pinned, so that
// they remain when the process that pinned them has ended. They are loaded once per trunk; a
// container's start only writes to the maps. Linux 5.10 or later is required.
//
// The package gives no verdicts: that is the task of package verify. The caller decides which
// endpoints exist.
package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/verify"
)

// Options set the directory of the pins and how programs are attached.
type Options struct {
	// Root is the directory of the pins, such as /sys/fs/bpf/lanyard. Its parent must be on a
	// bpffs. It is created with mode 0700 when the first trunk is prepared, and removed with the
	// last trunk. It belongs to one network namespace, because trunks are identified by ifindex.
	Root string
	// Legacy attaches programs with clsact even if the kernel supports TCX.
	Legacy bool
}

// Datapath manages the tc programs and maps below one root. Its methods may be called from any
// goroutine; those of Prepare and Release must be on a thread in the trunks' network namespace.
type Datapath struct {
	root   pin.Root
	legacy bool

	mu     sync.Mutex
	trunks map[int]*trunk // opened so far
	emit   *ebpf.Program  // nil until Emitter is called
}

var _ verify.Datapath = (*Datapath)(nil)

// New returns a datapath. It opens and changes nothing yet.
func New(o Options) *Datapath {
	return &Datapath{root: pin.Root(filepath.Clean(o.Root)), legacy: o.Legacy, trunks: map[int]*trunk{}}
}

// Close closes the open pins. Trunks remain watched.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ifindex := range d.trunks {
		d.closeTrunk(ifindex)
	}
	return d.closeEmitter()
}

// exactClockTime is the duration after Prepare and Expect in which the programs read the clock for
// each time that they record.
// Callers probe for at most a minute, and must distinguish the answers to their own questions from
// earlier answers.
const exactClockTime = 90 * time.Second

// Prepare starts the watch of the trunk with this ifindex. If the trunk is watched already, this
// takes some tens of microseconds. Otherwise it loads the programs, which happens once per trunk,
// or attaches them again if another process has detached them, or replaces programs of an earlier
// edition. It keeps the maps and counters of that edition.
func (d *Datapath) Prepare(ifindex int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, err := d.open(ifindex); err == nil && t != nil && pin.HasEdition(t.path, edition) {
		if on, err := t.attached(); on && err == nil {
			// No lock is held, so another process may release the trunk at the same time.
			if err := t.useExactClock(exactClockTime); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	lock, err := d.root.Lock(true)
	if err != nil {
		return err
	}
	defer lock.Close()
	d.closeTrunk(ifindex)
	if err := ensureTrunk(d.root, ifindex); err != nil {
		return errors.Join(err, d.root.RemoveEmpty())
	}
	failpoint.At("bpf-named")
	t, err := d.open(ifindex)
	if err != nil {
		return err
	}
	if t == nil {
		return fmt.Errorf("watch trunk %s: its pins were removed at the same time", nameOf(ifindex))
	}
	if err := errors.Join(t.upgrade(), t.useExactClock(exactClockTime)); err != nil {
		return err
	}
	return t.attach(d.legacy)
}

// useExactClock makes the programs read the clock for each time that they record, until d from now.
func (m *maps) useExactClock(d time.Duration) error {
	if err := m.times.put(0, &wireClock{ExactUntil: uint64(verify.Now()) + uint64(d)}); err != nil {
		return fmt.Errorf("set the time of exact clock readings: %w", err)
	}
	return nil
}

// open returns a trunk's open pins, nil if there are none. It opens them again if other pins are at
// their path now.
func (d *Datapath) open(ifindex int) (*trunk, error) {
	if t := d.trunks[ifindex]; t != nil {
		if t.current() {
			return t, nil
		}
		d.closeTrunk(ifindex)
	}
	t, err := openTrunk(d.root, ifindex)
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

// Release detaches the programs from a trunk and removes its pins, if the trunk has no endpoints
// left. Otherwise it changes nothing. It returns nil if the trunk is not watched.
func (d *Datapath) Release(ifindex int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock, err := d.root.Lock(false)
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
	// A filter of Lanyard may exist without pins.
	if err := detach(d.root, ifindex); err != nil || lock == nil {
		return err
	}
	failpoint.At("bpf-detached")
	return d.root.RemoveTrunk(ifindex)
}

// hasEndpoints reports whether a trunk has endpoints. It returns false if the trunk's device no
// longer exists. The lock is held.
func (d *Datapath) hasEndpoints(ifindex int) (bool, error) {
	alive, err := deviceExists(pin.Dir{Path: d.root.TrunkDir(ifindex, layout), Ifindex: ifindex})
	if !alive || err != nil {
		return false, err
	}
	t, err := d.open(ifindex)
	if errors.Is(err, fs.ErrNotExist) || err == nil && t == nil {
		return false, nil
	}
	if err == nil {
		err = pin.CheckNetns(t.path)
	}
	if err != nil {
		return false, err
	}
	return t.hasEndpoints()
}

// Expect starts the watch of an endpoint: the programs expect e.Tags from e.MAC.
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

// MarkInUse says that e uses its addresses from now on: claims of other stations become events.
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
			return fmt.Errorf("mark the addresses of %s as used on trunk %s: %w", e.MAC, nameOf(e.Trunk), err)
		}
		return nil
	})
}

// Forget ends the watch of e. If another attachment has the same key by now, it changes nothing.
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

// withTrunk runs f while no other process changes the trunk's endpoints. t is nil if the trunk has
// no pins.
func (d *Datapath) withTrunk(ifindex int, f func(t *trunk) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock, err := d.root.Lock(false)
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
