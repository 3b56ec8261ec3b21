package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/lanyard-net/lanyard/packaging"
)

// Change is what happened to a file of Lanyard.
type Change struct {
	Path   string `json:"path"`
	Action Action `json:"action"`
	Why    string `json:"why,omitempty"` // why the file was kept
}

// Action is what Install or Remove did to a file.
type Action string

// The actions of a Change.
const (
	Created   Action = "created"
	Updated   Action = "updated"
	Unchanged Action = "unchanged"
	Removed   Action = "removed"
	Kept      Action = "kept"
)

// file is a file that Lanyard installs.
type file struct {
	path, text string
	ours       func(text string) bool // reports whether Lanyard wrote exactly this
}

// File is a file for Install, such as that of CDIFile.
type File = file

// Install writes the hooks.d files into dir, a drop-in for each engine that would not read
// dir otherwise, and more files. It returns what it did to each file. It replaces only files that
// Lanyard wrote, and on an error it restores what it changed.
func Install(dir, program string, list []Engine, more ...File) ([]Change, error) {
	files := append(hookFiles(dir, program), more...)
	for _, e := range list {
		f, err := e.dropIn(dir)
		if err != nil {
			return nil, err
		}
		if f != nil {
			files = append(files, *f)
		}
	}
	for _, f := range files {
		if old, err := os.ReadFile(f.path); err == nil && string(old) != f.text && !f.ours(string(old)) {
			return nil, fmt.Errorf("%s: the file exists, and is not as Lanyard writes it: move it away, or remove it", f.path)
		}
	}
	var undo undoList
	var changes []Change
	for _, f := range files {
		action, err := f.write(&undo)
		if err != nil {
			return nil, errors.Join(err, undo.run())
		}
		changes = append(changes, Change{Path: f.path, Action: action})
	}
	return changes, nil
}

// hookFiles returns the hooks.d files, one for each stage.
func hookFiles(dir, program string) (files []file) {
	for _, stage := range packaging.Stages {
		files = append(files, file{
			path: filepath.Join(dir, "lanyard-"+stage+".json"), text: packaging.HookFile(program, stage),
			ours: func(text string) bool {
				var h hookFile
				return json.Unmarshal([]byte(text), &h) == nil && packaging.HookFile(h.Hook.Path, stage) == text
			},
		})
	}
	return files
}

// dropIn returns the drop-in that adds dir to the directories that earlier files set. It
// is nil if the engine reads dir without it. The error names a later file that hides dir.
func (e Engine) dropIn(dir string) (*file, error) {
	before, own, after, err := e.around()
	if err != nil {
		return nil, fmt.Errorf("%w: correct the file", err)
	}
	dirs, _ := Effective(before)
	if own == nil && slices.Contains(dirs, dir) {
		if all, _ := Effective(append(before, after...)); slices.Contains(all, dir) {
			return nil, nil
		}
	}
	dirs = withAll(dirs, own, dir)
	settings := append(append(slices.Clip(before), Setting{File: e.DropIn, Dirs: dirs}), after...)
	if all, last := Effective(settings); !slices.Contains(all, dir) {
		return nil, fmt.Errorf("%s sets hooks_dir to %q, after %s: add %q to the list there", last, all, e.DropIn, dir)
	}
	f := e.dropInFile(dirs)
	text, err := os.ReadFile(e.DropIn)
	if err == nil && own != nil && slices.Contains(own.Dirs, dir) && !f.ours(string(text)) {
		return nil, nil // the administrator changed it, and it serves
	}
	return f, nil
}

func (e Engine) dropInFile(dirs []string) *file {
	return &file{
		path: e.DropIn, text: packaging.DropIn(e.template, dirs),
		ours: func(text string) bool {
			s, err := e.read(e.DropIn)
			return err == nil && s != nil && packaging.DropIn(e.template, s.Dirs) == text
		},
	}
}

// withAll returns the directories for the drop-in: those of earlier files, those that the
// administrator has added to it, and dir. If the drop-in has them all, its order stays.
func withAll(before []string, own *Setting, dir string) []string {
	all := union(before, []string{dir})
	if own == nil {
		return all
	}
	if len(union(own.Dirs, all)) == len(own.Dirs) {
		return own.Dirs
	}
	added := slices.DeleteFunc(slices.Clone(own.Dirs), func(d string) bool { return d == defaultDir })
	return union(union(before, added), []string{dir})
}

// union returns the directories, and then those of more that are not among them.
func union(dirs, more []string) []string {
	dirs = slices.Clone(dirs)
	for _, d := range more {
		if !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// Remove removes the drop-ins of the engines, and, if hooks is set, the hooks.d files in dir.
// It keeps files that Lanyard did not write, or that were changed.
func Remove(dir string, hooks bool, list []Engine) (changes []Change, err error) {
	var files []file
	for _, e := range list {
		f := e.dropInFile(nil)
		written := f.ours
		f.ours = func(text string) bool { return written(text) && e.addsOnly(dir) }
		files = append(files, *f)
	}
	if hooks {
		files = append(files, hookFiles(dir, "")...)
		files = append(files, CDIFile(CDISpec, ""))
	}
	for _, f := range files {
		change, rerr := f.remove()
		if err = errors.Join(err, rerr); change != nil {
			changes = append(changes, *change)
		}
	}
	return changes, err
}

// addsOnly reports whether the drop-in adds no directory but dir to those of earlier files.
func (e Engine) addsOnly(dir string) bool {
	before, own, _, err := e.around()
	if err != nil || own == nil {
		return false
	}
	dirs, _ := Effective(before)
	known := union(dirs, []string{defaultDir, dir})
	return len(union(known, own.Dirs)) == len(known)
}

// remove removes the file if Lanyard wrote it. The change is nil if it does not exist.
func (f file) remove() (*Change, error) {
	text, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !f.ours(string(text)):
		return &Change{f.path, Kept, "it is not as Lanyard writes it"}, nil
	}
	if err := os.Remove(f.path); err != nil {
		return nil, err
	}
	return &Change{Path: f.path, Action: Removed}, nil
}

// undoList restores files, the last change first.
type undoList []func() error

func (u undoList) run() (err error) {
	for _, f := range slices.Backward(u) {
		err = errors.Join(err, f())
	}
	return err
}

// write writes the file if its text differs, and adds what restores it.
func (f file) write(undo *undoList) (Action, error) {
	old, err := os.ReadFile(f.path)
	switch {
	case err == nil && string(old) == f.text:
		return Unchanged, nil
	case err == nil:
		*undo = append(*undo, func() error { return replace(f.path, string(old)) })
		return Updated, replace(f.path, f.text)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := makeDirs(filepath.Dir(f.path), undo); err != nil {
		return "", err
	}
	*undo = append(*undo, func() error {
		if err := os.Remove(f.path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	return Created, replace(f.path, f.text)
}

// makeDirs creates a directory and those above it that do not exist.
func makeDirs(dir string, undo *undoList) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDirs(filepath.Dir(dir), undo); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	*undo = append(*undo, func() error { return os.Remove(dir) })
	return os.Chmod(dir, 0o755) // whatever the umask: rootless podman reads it
}

// replace writes a file as a whole: no engine reads a part of it.
func replace(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".lanyard-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
