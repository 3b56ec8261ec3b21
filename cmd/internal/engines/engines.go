// Package engines knows how podman and CRI-O find OCI hooks. It reads their configuration
// as they do, and the files in the directories that hooks_dir names.
package engines

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/lanyard-net/lanyard/packaging"
)

// defaultDir is the directory of hooks that both engines read if no file sets hooks_dir.
const defaultDir = "/usr/share/containers/oci/hooks.d"

// Engine is a container engine that runs the hooks of hooks.d files.
type Engine struct {
	Name    string // "podman" or "CRI-O"
	Program string
	DropIn  string // the configuration file that Lanyard installs
	Restart string // what to do after a change, "" for nothing

	home     string // directory that exists if the engine is installed, "" for none
	template string
	table    []string // of hooks_dir
	sources  []source // in the order in which the engine reads them
}

// source is a configuration file, or a directory of such files if suffix is set.
type source struct {
	path   string
	isDir  bool
	suffix string // of the files that count
}

// Podman returns the podman of root, or of the user with this configuration directory
// (~/.config).
func Podman(userConfig string) Engine {
	e := Engine{
		Name: "podman", Program: "podman", template: packaging.PodmanDropIn, table: []string{"engine"},
		DropIn:  "/etc/containers/containers.conf.d/50-lanyard.conf",
		sources: []source{{path: "/usr/share/containers/containers.conf"}},
	}
	e.sources = append(e.sources, containersConf("/etc")...)
	if userConfig != "" {
		e.DropIn = filepath.Join(userConfig, "containers/containers.conf.d/50-lanyard.conf")
		e.sources = append(e.sources, containersConf(userConfig)...)
	}
	return e
}

func containersConf(dir string) []source {
	file := filepath.Join(dir, "containers/containers.conf")
	return []source{{path: file}, {path: file + ".d", isDir: true, suffix: ".conf"}}
}

// CRIO returns the CRI-O of the host.
func CRIO() Engine {
	return Engine{
		Name: "CRI-O", Program: "crio", home: "/etc/crio", template: packaging.CRIODropIn, table: []string{"crio", "runtime"},
		DropIn:  "/etc/crio/crio.conf.d/50-lanyard.conf",
		Restart: "systemctl restart crio",
		sources: []source{{path: "/etc/crio/crio.conf"}, {path: "/etc/crio/crio.conf.d", isDir: true}},
	}
}

// Setting is the hooks_dir of one configuration file.
type Setting struct {
	File   string
	Dirs   []string
	Append *bool // the attribute of podman 5, which later files keep; nil if it is not set
}

// Settings returns the configuration files that set hooks_dir, in the order in which the
// engine reads them. An error names a file that the engine cannot read either.
func (e Engine) Settings() ([]Setting, error) {
	before, own, after, err := e.around()
	if own != nil {
		before = append(before, *own)
	}
	return append(before, after...), err
}

// around returns the settings of the files that the engine reads before the drop-in, the
// drop-in's own (nil if it sets nothing, or does not exist), and those of later files.
func (e Engine) around() (before []Setting, own *Setting, after []Setting, err error) {
	seen := false
	for _, s := range e.sources {
		files, err := e.files(s)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, f := range files {
			found, err := e.read(f)
			if err != nil {
				return nil, nil, nil, err
			}
			switch {
			case f == e.DropIn:
				own, seen = found, true
			case found == nil:
			case seen:
				after = append(after, *found)
			default:
				before = append(before, *found)
			}
		}
	}
	return before, own, after, nil
}

// files returns the files of a source, sorted. The drop-in is among them also if it does
// not exist.
func (e Engine) files(s source) ([]string, error) {
	if !s.isDir {
		return []string{s.path}, nil
	}
	entries, err := os.ReadDir(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if !entry.IsDir() && strings.HasSuffix(entry.Name(), s.suffix) {
			files = append(files, filepath.Join(s.path, entry.Name()))
		}
	}
	if filepath.Dir(e.DropIn) == s.path && !slices.Contains(files, e.DropIn) {
		files = append(files, e.DropIn)
	}
	slices.Sort(files)
	return files, nil
}

// read returns the setting of a file, nil if the file does not set hooks_dir or does not
// exist.
func (e Engine) read(file string) (*Setting, error) {
	var table map[string]any
	if _, err := toml.DecodeFile(file, &table); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, name := range e.table {
		table, _ = table[name].(map[string]any)
	}
	value, ok := table["hooks_dir"]
	if !ok {
		return nil, nil
	}
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: hooks_dir is not a list: write [\"DIR\"]", file)
	}
	s := Setting{File: file}
	for _, v := range list {
		switch v := v.(type) {
		case string:
			s.Dirs = append(s.Dirs, v)
		case map[string]any:
			if b, ok := v["append"].(bool); ok {
				s.Append = &b
			}
		default:
			return nil, fmt.Errorf("%s: hooks_dir contains %v: it is a list of directories", file, v)
		}
	}
	return &s, nil
}

// Effective returns the directories of hooks after all settings, and the last file that
// set them, "" for the default.
func Effective(settings []Setting) (dirs []string, file string) {
	dirs = []string{defaultDir}
	add := false
	for _, s := range settings {
		if s.Append != nil {
			add = *s.Append
		}
		if !add {
			dirs = nil
		}
		dirs, file = append(slices.Clip(dirs), s.Dirs...), s.File
	}
	return dirs, file
}

// Present reports whether the engine is installed, or Lanyard's configuration for it.
func (e Engine) Present() bool {
	if _, err := exec.LookPath(e.Program); err == nil {
		return true
	}
	for _, path := range []string{e.home, e.DropIn} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}
