package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrExist is returned by Create when a network of that name is defined already.
var ErrExist = errors.New("exists already")

// ErrNotExist is returned by Load and Remove when no network of that name is
// defined.
var ErrNotExist = errors.New("not defined")

const (
	suffix = ".json"
	// A definition is a few hundred bytes; 4,096 labels fit in this.
	maxFile = 1 << 20
)

func pathOf(dir, name string) string { return filepath.Join(dir, name+suffix) }

// Load reads and validates the definition of one network.
func Load(dir, name string) (*Definition, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	d, err := read(pathOf(dir, name), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errAbsent(dir, name)
	}
	return d, err
}

// errAbsent returns ErrNotExist with the network's name and the most similar existing one.
func errAbsent(dir, name string) error {
	var names []string
	if entries, err := os.ReadDir(dir); err == nil {
		for _, e := range entries {
			if n, ok := strings.CutSuffix(e.Name(), suffix); ok {
				names = append(names, n)
			}
		}
	}
	return fmt.Errorf("network %q: %w in %s%s", name, ErrNotExist, dir, didYouMean(name, names))
}

// LoadAll reads all definitions in dir, sorted by name. Each broken file is one error in
// broken, which names the file; the other networks are still loaded. A directory that does
// not exist has no networks.
func LoadAll(dir string) (good []*Definition, broken []error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		broken = append(broken, fmt.Errorf("read networks: %w", err))
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue // an unfinished file of an editor or of ours
		}
		d, err := read(pathOf(dir, name), name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since the directory was read
		case err != nil:
			broken = append(broken, err)
		default:
			good = append(good, d)
		}
	}
	return good, broken
}

// read loads and validates one file. Its errors name the file; fs.ErrNotExist is returned as
// it is.
func read(path, name string) (d *Definition, err error) {
	defer func() {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("network file %s: %w", path, err)
		}
	}()
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if d, err = decode(text); err != nil {
		return nil, err
	}
	if err = d.Validate(); err != nil {
		return nil, err
	}
	if d.Name != name {
		return nil, fmt.Errorf("name: %q does not match the file's name", d.Name)
	}
	return d, nil
}

func readFile(path string) ([]byte, error) {
	// O_NONBLOCK: the path may be a FIFO, and opening it must not block.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	return text, err
}

// Create validates d and writes it to dir, which it creates if needed. It returns ErrExist
// if a network of that name is defined already, and leaves that unchanged.
func (d *Definition) Create(dir string) error {
	err := d.write(dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("network %q: %w in %s", d.Name, ErrExist, dir)
	}
	return err
}

// Save validates d and writes it to dir. It replaces the previous definition.
func (d *Definition) Save(dir string) error { return d.write(dir, 0) }

// write writes the definition to a temporary file and renames it, so that a reader sees the
// old one or the new one, also after a power failure.
func (d *Definition) write(dir string, renameFlags uint) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write network %s: %w", Clip(d.Name), err)
		}
	}()
	if err = d.Validate(); err != nil {
		return err
	}
	var text bytes.Buffer
	if err = encode(&text, d); err != nil {
		return err
	}
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := writeTemp(dir, d.Name, text.Bytes())
	if err != nil {
		return err
	}
	if err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, pathOf(dir, d.Name), renameFlags); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(dir)
}

// tempSuffix is the suffix of the names of temporary files.
const tempSuffix = ".new"

// writeTemp writes a complete, synced file to dir under a name that LoadAll skips. On error
// it leaves no file.
func writeTemp(dir, name string, text []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, "."+name+".*"+tempSuffix)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// syncDir makes a rename or removal in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Remove deletes the definition of one network. It returns ErrNotExist if it is not defined.
func Remove(dir, name string) error {
	if err := ValidName(name); err != nil {
		return err
	}
	err := os.Remove(pathOf(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return errAbsent(dir, name)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("remove network %q: %w", name, err)
	}
	return Finish(dir, name)
}

// markerSuffix is the suffix of the names of files that exist while a network is created. A
// process that is killed during that leaves a definition with links that may be missing.
const markerSuffix = ".making"

func markerPath(dir, name string) string { return filepath.Join(dir, "."+name+markerSuffix) }

// Begin records that the creation of a network has begun, until Finish or Remove.
func Begin(dir, name string) error {
	if err := ValidName(name); err != nil {
		return err
	}
	f, err := os.OpenFile(markerPath(dir, name), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("begin network %q: %w", name, err)
	}
	return f.Close()
}

// Finish records that the creation is complete. It returns nil if Begin was not called.
func Finish(dir, name string) error {
	err := os.Remove(markerPath(dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finish network %q: %w", name, err)
	}
	return nil
}

// Begun returns the definition of a network that was left by an interrupted creation, or nil
// if there is no such network. The caller holds the lock.
func Begun(dir, name string) (*Definition, error) {
	if _, err := os.Lstat(markerPath(dir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("network %q: %w", name, err)
	}
	d, err := Load(dir, name)
	if errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	return d, err
}

// Begins reports whether creating d results in the definition made: whether they are equal
// except for the values that each creation chooses itself.
func (d *Definition) Begins(made *Definition) bool {
	asked, has := *d, *made
	asked.ID, asked.Created, asked.Managed = has.ID, has.Created, has.Managed
	if d.Dummy() && made.Dummy() {
		asked.Parent = has.Parent
	}
	if n := len(asked.HostAddresses); n <= len(has.HostAddresses) &&
		slices.Equal(asked.HostAddresses, has.HostAddresses[:n]) {
		asked.HostAddresses = has.HostAddresses // the creation chose the rest
	}
	var x, y bytes.Buffer
	return encode(&x, &asked) == nil && encode(&y, &has) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// lockPoll is the interval between two attempts to get the lock.
const lockPoll = 20 * time.Millisecond

// Lock serialises commands that read all definitions and then write one. It waits for the lock until
// ctx ends: the holder may ask the LAN for seconds. It holds the lock until unlock or the end of the
// process. It removes the unfinished files that killed processes left.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock networks in %s, which another command changes: %w", dir, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock networks in %s: %w", dir, err)
	}
	if err := removeLeftovers(dir, f); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// removeLeftovers removes the temporary files, and markers without a definition, that killed
// processes left.
func removeLeftovers(dir string, f *os.File) error {
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			continue
		}
		network, isMarker := strings.CutSuffix(name[1:], markerSuffix)
		if isMarker && !slices.Contains(names, network+suffix) || strings.HasSuffix(name, tempSuffix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	if err != nil {
		return fmt.Errorf("remove unfinished files in %s: %w", dir, err)
	}
	return nil
}
