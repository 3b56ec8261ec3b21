package network

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrExist is returned by Create when a network of that name is there already.
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

// A Stamp tells one file of a network from whatever takes its place, and from what it
// becomes when it is written: two of one network that are equal are of one text.
type Stamp struct {
	ino          uint64
	size         int64
	mtime, ctime int64 // ns
}

// StampOf gives the stamp of one network's file, the zero Stamp where it has none. Taken
// before Load, it never speaks for more than was read.
func StampOf(dir, name string) Stamp {
	var st unix.Stat_t
	if err := unix.Stat(pathOf(dir, name), &st); err != nil {
		return Stamp{}
	}
	return Stamp{st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// errAbsent is ErrNotExist, with the name that was probably meant.
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

// LoadAll reads every definition in dir, sorted by name. A broken file stops
// that network alone: it is one error, naming the file, in broken. A directory
// that does not exist holds no networks.
func LoadAll(dir string) (good []*Definition, broken []error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		broken = append(broken, fmt.Errorf("read networks: %w", err))
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue // an editor's or our own half-written file
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

// read loads one file, whose errors name it.
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
	// Not to wait for ever where someone has put a FIFO.
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

// Create validates d and writes it to dir, which is made if need be. A network
// of that name that is there already is left as it is: ErrExist.
func (d *Definition) Create(dir string) error {
	err := d.write(dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("network %q: %w in %s", d.Name, ErrExist, dir)
	}
	return err
}

// Save validates d and writes it to dir, in place of what was there.
func (d *Definition) Save(dir string) error { return d.write(dir, 0) }

// write puts the definition beside its place and renames it there: a reader
// sees the old one or the new one, also after a power cut.
func (d *Definition) write(dir string, renameFlags uint) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write network %s: %w", clip(d.Name), err)
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

// tempSuffix ends the names of files that are still being written.
const tempSuffix = ".new"

// writeTemp leaves a whole, synced file in dir under a name that LoadAll
// passes over, or no file at all.
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

// syncDir makes a rename or removal last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Remove deletes the definition of one network; ErrNotExist where there is none.
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

// markerSuffix ends the names of files that stand beside a network while it is made: who is
// killed meanwhile leaves a definition whose links may not be there.
const markerSuffix = ".making"

func markerPath(dir, name string) string { return filepath.Join(dir, "."+name+markerSuffix) }

// Begin notes that a network is being made, until Finish or Remove.
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

// Finish notes that it is made. Twice is no error.
func Finish(dir, name string) error {
	err := os.Remove(markerPath(dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("finish network %q: %w", name, err)
	}
	return nil
}

// Begun loads the definition that a making of that name was broken off over, nil
// where there is none. The lock is held.
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

// Begins says whether d is what the making of a network begins with that came to be,
// or was to become, made: the same but for what each making has of its own.
func (d *Definition) Begins(made *Definition) bool {
	asked, has := *d, *made
	asked.ID, asked.Created, asked.Managed = has.ID, has.Created, has.Managed
	if d.Dummy() && made.Dummy() {
		asked.Parent = has.Parent
	}
	if n := len(asked.HostAddresses); n <= len(has.HostAddresses) && slices.Equal(asked.HostAddresses, has.HostAddresses[:n]) {
		asked.HostAddresses = has.HostAddresses // the others were found
	}
	var x, y bytes.Buffer
	return encode(&x, &asked) == nil && encode(&y, &has) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// Lock serialises commands that look at all definitions and then write one. It
// waits for whoever holds it, and lasts until unlock or the process's end. What one
// that was killed left unfinished is gone then.
func Lock(dir string) (unlock func(), err error) {
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
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

// removeLeftovers removes what a writer was killed over: nobody finishes it.
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
		return fmt.Errorf("remove what was left unfinished: %w", err)
	}
	return nil
}
