package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/bpf/pin"
	"github.com/lanyard-net/lanyard/hook/failpoint"
)

// upgrade replaces programs of an earlier edition by those of this one. It keeps programs of a
// later edition: if two editions are installed, in a service that was not restarted and in the
// hooks, the later one wins. Each frame meets one edition or the other, and both count in the same
// maps. The lock is held.
func (t *trunk) upgrade() error {
	if pin.HasEdition(t.path, edition) {
		return nil
	}
	old, err := pin.Edition(t.path)
	if err != nil || old > edition {
		return err
	}
	if err = t.replaceAll(); err != nil {
		return fmt.Errorf("upgrade the programs on trunk %s: %w", nameOf(t.ifindex), err)
	}
	if err := pin.MarkEdition(t.path, edition); err != nil {
		return err
	}
	return pin.UnmarkEdition(t.path, old)
}

func (t *trunk) replaceAll() (err error) {
	spec, err := loadWire()
	if err != nil {
		return err
	}
	pinned := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range pinned {
			m.Close()
		}
	}()
	for name, def := range spec.Maps {
		if !slices.Contains(mapPins, name) {
			continue
		}
		m, err := openMap(filepath.Join(t.path, name), def.Type, uintptr(def.KeySize), uintptr(def.ValueSize))
		if err != nil {
			return err
		}
		pinned[name] = m
	}
	o, err := load(loadWire, pinned, "")
	if err != nil {
		return err
	}
	defer o.Close()
	if err := t.replace(emitPin, o.Programs[emitPin], nil); err != nil {
		return err
	}
	for _, w := range ways {
		prog := o.Programs[w.name]
		if err := t.replace(w.name, prog, func() error { return t.swap(w, prog) }); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// replace pins a program in place of another after run has attached it in place of that one. If the
// process is killed in between, the old pin stays, and its program is not the one that runs: attach
// corrects that.
func (t *trunk) replace(name string, prog *ebpf.Program, run func() error) error {
	path := filepath.Join(t.path, name)
	next := path + "-next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := prog.Pin(next); err != nil {
		return fmt.Errorf("pin %q: %w", next, explainErrno(err))
	}
	if run != nil {
		if err := run(); err != nil {
			return errors.Join(err, os.Remove(next))
		}
	}
	failpoint.At("bpf-swapped-" + name)
	return os.Rename(next, path)
}

// swap replaces the program on one way of the trunk by another, atomically: no frame passes without
// a program. If no program is attached, swap does nothing, and attach will attach it.
func (t *trunk) swap(w way, prog *ebpf.Program) error {
	id, err := t.programID(w)
	if err != nil {
		return err
	}
	if on, err := filterRuns(t.ifindex, w, id); err != nil || on {
		if err == nil {
			err = addFilter(t.ifindex, w, prog)
		}
		return err
	}
	l, err := link.LoadPinnedLink(filepath.Join(t.path, linkPin+w.name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explainErrno(err)
	}
	defer l.Close()
	// A detached link runs nothing (ENOLINK): attach makes another one.
	if err := l.Update(prog); err != nil && !errors.Is(err, unix.ENOLINK) {
		return explainErrno(err)
	}
	return nil
}
