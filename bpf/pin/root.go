// Package pin keeps the directories of pinned maps, programs and links on a bpffs: one directory for
// each trunk, and others that the caller names. A directory is complete as soon as it has its name:
// it is built aside and renamed. Package bpf decides what is pinned.
package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/failpoint"
)

// A Root is the path of the directory of all pins. It has one directory for each trunk.
type Root string

// Lock waits until no other process makes, changes or removes pins below the root, and returns the
// lock. The lock is on the directory itself and ends with the file, so that a killed process
// releases it. If create is set, Lock makes the directory; otherwise it returns nil if there is no
// directory.
func (r Root) Lock(create bool) (*os.File, error) {
	const tries = 16
	for range tries {
		if create {
			if err := r.create(); err != nil {
				return nil, err
			}
		}
		f, err := OpenDir(string(r))
		if errors.Is(err, fs.ErrNotExist) {
			if create {
				continue // the last trunk was released in the meantime
			}
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %q: %w", string(r), err), f.Close())
		}
		// Another process may have removed the directory during the wait: a lock on a removed
		// directory has no effect.
		if IsAt(f, string(r)) {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("lock %q: it was removed %d times during the wait", string(r), tries)
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// create makes the directory, which must be on a bpffs, and mounts one if necessary.
func (r Root) create() error {
	parent := filepath.Dir(string(r))
	if !isBPFFS(parent) {
		if err := mountBPFFS(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(string(r), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// OpenDir opens a directory of pins. It refuses a directory of another user. The root of a bpffs has
// mode 1777 by default: any user can create a directory of that name first, and would then choose
// which program watches and which maps are believed.
func OpenDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %q: %w", path, err), f.Close())
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		f.Close()
		return nil, fmt.Errorf("open %q: it belongs to uid %d and has mode %#o, so that another user could put pins there: "+
			"remove it", path, st.Uid, st.Mode&0o7777)
	}
	return f, nil
}

// IsAt reports whether an open directory is still the directory at a path.
func IsAt(f *os.File, path string) bool {
	var open, named unix.Stat_t
	return unix.Fstat(int(f.Fd()), &open) == nil && unix.Lstat(path, &named) == nil &&
		open.Dev == named.Dev && open.Ino == named.Ino
}

// TrunkDir returns the directory of the pins of a trunk, given by its ifindex. Pins of another layout
// have another directory.
func (r Root) TrunkDir(ifindex, layout int) string {
	return filepath.Join(string(r), fmt.Sprintf("trunk-%d-v%d", ifindex, layout))
}

// Dir is the pin directory of a trunk, of any layout.
type Dir struct {
	Path            string
	Ifindex, Layout int
}

// List returns the pin directories of all trunks.
func (r Root) List() (all []Dir, err error) {
	entries, err := os.ReadDir(string(r))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		p := Dir{Path: filepath.Join(string(r), e.Name())}
		if _, err := fmt.Sscanf(e.Name(), "trunk-%d-v%d", &p.Ifindex, &p.Layout); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// Build makes a directory of pins in one step: fill makes the pins in a temporary directory, which
// then gets the path. If fill fails, nothing remains. The lock is held.
func (r Root) Build(path string, fill func(dir string) error) (err error) {
	if err := r.clear(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.clear()) }()
	if err := os.Mkdir(r.aside(), 0o700); err != nil {
		return err
	}
	if err := fill(r.aside()); err != nil {
		return err
	}
	failpoint.At("bpf-pins")
	return os.Rename(r.aside(), path)
}

// Remove removes a directory of pins in one step, so that no process finds a part of it. The lock
// is held.
func (r Root) Remove(path string) error {
	if err := r.clear(); err != nil {
		return err
	}
	if err := os.Rename(path, r.aside()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	failpoint.At("bpf-aside")
	return r.clear()
}

// clear removes the temporary directory, in which pins are created before their directory gets its
// name, and to which they are moved before they are deleted. Anything in it was left by a killed
// process. The lock is held.
func (r Root) clear() error { return os.RemoveAll(r.aside()) }

func (r Root) aside() string { return filepath.Join(string(r), "aside") }

// RemoveTrunk removes the pins of a trunk, of any layout. It removes the root, too, if they were
// the last. The lock is held.
func (r Root) RemoveTrunk(ifindex int) error {
	all, err := r.List()
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Ifindex == ifindex {
			err = errors.Join(err, r.Remove(p.Path))
		}
	}
	return errors.Join(err, r.clear(), r.RemoveEmpty())
}

// RemoveEmpty removes the root if nothing is left in it. The lock is held.
func (r Root) RemoveEmpty() error {
	err := os.Remove(string(r))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
