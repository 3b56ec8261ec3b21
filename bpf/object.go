package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An object is wire.c or guard.c as the kernel takes it (see flatten).
type object struct {
	image    *string // the maps' types (BTF), and after them the programs
	types    int     // bytes of the types
	license  string
	maps     []mapDef
	programs []progDef
}

type mapDef struct {
	name                             string
	kind, key, value, entries, flags uint32
	keyType, valueType               uint32 // of the image; 0 where the kind takes none
}

// progDef is a tc program.
type progDef struct {
	name     string
	from, to int // bytes of the image
	uses     []use
	fields   []field
}

// use is an instruction, at so many bytes, that loads a map's address.
type use struct {
	at   int
	name string
}

// loaded are descriptors by name.
type loaded struct {
	maps, programs map[string]int
	borrowed       map[string]handle // maps that the caller closes
}

func (l *loaded) close() {
	for _, fd := range l.programs {
		unix.Close(fd)
	}
	for name, fd := range l.maps {
		if _, ok := l.borrowed[name]; !ok {
			unix.Close(fd)
		}
	}
}

// load hands maps and programs to the kernel: those named, or all. Maps that are
// there already take the place of new ones. Below 5.11 the kernel counts maps
// against RLIMIT_MEMLOCK, and answers EPERM where it is too low.
func (o *object) load(there map[string]handle, only ...string) (*loaded, error) {
	l, err := o.try(there, only)
	if errors.Is(err, unix.EPERM) {
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unlimited, nil) == nil {
			l, err = o.try(there, only)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load tc program: %w", explainErrno(err))
	}
	return l, nil
}

func (o *object) try(there map[string]handle, only []string) (_ *loaded, err error) {
	l := &loaded{maps: map[string]int{}, programs: map[string]int{}, borrowed: there}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if len(only) == 0 {
		if err := o.makeMaps(l); err != nil {
			return nil, err
		}
		for _, p := range o.programs {
			only = append(only, p.name)
		}
	}
	for _, name := range only {
		for _, p := range o.programs {
			if p.name != name {
				continue
			}
			fd, err := o.loadProgram(p, l.maps)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			l.programs[name] = fd
		}
	}
	return l, nil
}

func (o *object) makeMaps(l *loaded) error {
	types, err := loadTypes([]byte((*o.image)[:o.types]))
	if err != nil {
		return fmt.Errorf("types: %w", err)
	}
	defer unix.Close(types)
	for _, def := range o.maps {
		fd := l.borrowed[def.name].fd
		if fd == 0 {
			if fd, err = makeMap(def, types); err != nil {
				return fmt.Errorf("map %s: %w", def.name, err)
			}
		}
		l.maps[def.name] = fd
	}
	return nil
}

// loadProgram puts the maps' descriptors where the program loads their addresses.
func (o *object) loadProgram(p progDef, maps map[string]int) (int, error) {
	code := []byte((*o.image)[p.from:p.to])
	for _, u := range p.uses {
		fd := maps[u.name]
		if fd == 0 || fd > math.MaxInt32 {
			return 0, fmt.Errorf("it needs map %s", u.name)
		}
		// Of struct bpf_insn, the last four bytes (include/uapi/linux/bpf.h).
		putUint32(code[u.at+4:], uint32(fd))
	}
	if err := putFields(code, p.fields); err != nil {
		return 0, err
	}
	fd, err := loadTC(p.name, code, o.license, nil)
	if err == nil || errors.Is(err, unix.EPERM) {
		return fd, err
	}
	// Once more, for what the verifier has to say. What it says last is why.
	log := make([]byte, 1<<20)
	fd, lerr := loadTC(p.name, code, o.license, log)
	if lerr == nil {
		return fd, nil
	}
	const last = 512
	text := bytes.TrimSpace(log[:max(bytes.IndexByte(log, 0), 0)])
	if len(text) == 0 {
		return 0, err
	}
	return 0, &refusal{err, string(text[max(len(text)-last, 0):])}
}

// refusal is the error of a program that the verifier does not take.
type refusal struct {
	error
	log string
}

func (r *refusal) Error() string { return r.error.Error() + ": " + r.log }
func (r *refusal) Unwrap() error { return r.error }

// pin gives maps and programs their names in a directory.
func (l *loaded) pin(dir string, names []string) error {
	for _, name := range names {
		fd, ok := l.programs[name]
		if !ok {
			fd = l.maps[name]
		}
		if err := pin(fd, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
