package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxKept is the maximum number of failures of root's containers. Each is a file of one page.
const maxKept = 64

// Kept is the path of a directory with the last failures of root's containers, for "lanyard
// why": root's hooks attach without a service, and crun sends a hook's stderr to /dev/null.
// Only root can read it, because the messages name networks and containers.
//
// Hooks run at the same time and may be killed at any moment. Therefore each failure is a
// separate file, named by its time, which is complete when it gets its name.
type Kept string

// Add keeps a failure, and removes the oldest if there are more than maxKept.
func (k Kept) Add(container, text string) error {
	// The parent also has the socket, which users connect to.
	if err := os.MkdirAll(filepath.Dir(string(k)), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(string(k), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	names, err := k.names()
	if err != nil {
		return err
	}
	f := Failure{At: time.Now().UTC(), Container: sanitize(container), Error: sanitize(text)}
	if n := len(names); n > 0 {
		if last, err := k.read(names[n-1]); err == nil && last.Container == f.Container && last.Error == f.Error {
			return nil // a second stage reports the same error
		}
	}
	if err := k.write(f); err != nil {
		return err
	}
	for len(names) >= maxKept {
		err = errors.Join(err, k.remove(names[0]))
		names = names[1:]
	}
	return err
}

func (k Kept) write(f Failure) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(string(k), fmt.Sprintf("%020d-*.new", f.At.UnixNano())) // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	err = os.Rename(file.Name(), strings.TrimSuffix(file.Name(), ".new")+".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed: more than maxKept hooks have failed in the meantime
	}
	return err
}

// All returns the failures, the newest last. It skips files that it cannot read, and returns
// their errors too.
func (k Kept) All() (all []Failure, err error) {
	names, err := k.names()
	for _, name := range names {
		f, rerr := k.read(name)
		switch {
		case errors.Is(rerr, fs.ErrNotExist): // a hook has removed it since
		case rerr != nil:
			err = errors.Join(err, rerr)
		default:
			all = append(all, f)
		}
	}
	return all, err
}

// names returns the names of the files, the oldest first, including unfinished files of
// killed hooks.
func (k Kept) names() (names []string, err error) {
	entries, err := os.ReadDir(string(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, err
}

func (k Kept) read(name string) (f Failure, err error) {
	if filepath.Ext(name) != ".json" {
		return f, fs.ErrNotExist // unfinished
	}
	b, err := os.ReadFile(filepath.Join(string(k), name))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("read %s: %w", filepath.Join(string(k), name), err)
	}
	return f, nil
}

func (k Kept) remove(name string) error {
	err := os.Remove(filepath.Join(string(k), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // by another hook
	}
	return err
}
