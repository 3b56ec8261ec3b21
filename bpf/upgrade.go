package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// editionMark names an empty directory among a trunk's pins: which edition of the
// programs watches it.
func editionMark(n int) string { return fmt.Sprintf("edition-%d", n) }

// editionOf gives the edition that watches a trunk, 0 where that cannot be told.
func (t *trunk) editionOf() (n int, err error) {
	entries, err := os.ReadDir(t.path)
	for _, e := range entries {
		var found int
		if _, err := fmt.Sscanf(e.Name(), "edition-%d", &found); err == nil {
			n = max(n, found)
		}
	}
	return n, err
}

// upgrade puts our programs in the place of an earlier edition's. A later one's stay:
// of two that are installed, in a broker that was not restarted and in the hooks, the
// later wins. Frames meet one or the other, and both count in the same maps. The lock
// is held.
func (t *trunk) upgrade() error {
	if exists(filepath.Join(t.path, editionMark(edition))) {
		return nil
	}
	was, err := t.editionOf()
	if err != nil || was > edition {
		return err
	}
	if err = t.replaceAll(); err != nil {
		return fmt.Errorf("upgrade the programs on trunk %s: %w", nameOf(t.ifindex), err)
	}
	if err := os.Mkdir(filepath.Join(t.path, editionMark(edition)), 0o700); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(t.path, editionMark(was))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (t *trunk) replaceAll() (err error) {
	pinned := map[string]handle{}
	defer func() {
		for _, m := range pinned {
			m.Close()
		}
	}()
	for _, def := range wireObject.maps {
		if !slices.Contains(mapPins, def.name) {
			continue
		}
		m, err := openMap(filepath.Join(t.path, def.name), def.kind, uintptr(def.key), uintptr(def.value))
		if err != nil {
			return err
		}
		pinned[def.name] = m
	}
	o, err := wireObject.load(pinned)
	if err != nil {
		return err
	}
	defer o.close()
	if err := t.replace(emitPin, o.programs[emitPin], nil); err != nil {
		return err
	}
	for _, w := range ways {
		prog := o.programs[w.name]
		if err := t.replace(w.name, prog, func() error { return t.swap(w, prog) }); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// replace pins a program in the place of another, once it runs where that one did. Who is
// killed in between leaves the old pin, and what runs is not it: attach puts that
// right.
func (t *trunk) replace(name string, prog int, run func() error) error {
	path := filepath.Join(t.path, name)
	next := path + "-next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := pin(prog, next); err != nil {
		return err
	}
	if run != nil {
		if err := run(); err != nil {
			return errors.Join(err, os.Remove(next))
		}
	}
	failpoint("bpf-swapped-" + name)
	return os.Rename(next, path)
}

// swap has a program run in the place of the one that watches a way, at once: no
// frame passes between them. Where none does, attach will put it there.
func (t *trunk) swap(w way, prog int) error {
	id, err := pinnedID(filepath.Join(t.path, w.name))
	if err != nil {
		return err
	}
	if on, err := filterRuns(t.ifindex, w, id); err != nil || on {
		if err == nil {
			err = addFilter(t.ifindex, w, prog)
		}
		return err
	}
	link, err := objGet(filepath.Join(t.path, linkPin+w.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return plain(err)
	}
	defer unix.Close(link)
	// One that is detached runs nothing (ENOLINK): attach makes another.
	if err := updateLink(link, prog); err != nil && !errors.Is(err, unix.ENOLINK) {
		return plain(err)
	}
	return nil
}
