package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/packaging"
)

// hookFile is a hooks.d file (oci-hooks(5)).
type hookFile struct {
	Version string `json:"version"`
	Hook    struct {
		Path string   `json:"path"`
		Args []string `json:"args"`
	} `json:"hook"`
	When struct {
		Always      *bool             `json:"always"`
		Annotations map[string]string `json:"annotations"`
	} `json:"when"`
	Stages []string `json:"stages"`
}

// ours reports whether the file runs lanyard-hook.
func (h hookFile) ours() bool { return filepath.Base(h.Hook.Path) == "lanyard-hook" }

// matches reports whether the engine runs the hook for a container with an annotation of
// Lanyard.
func (h hookFile) matches() bool {
	if h.When.Always != nil {
		return *h.When.Always
	}
	for key := range h.When.Annotations {
		if ok, err := regexp.MatchString(key, "io.lanyard.network"); err == nil && ok {
			return true
		}
	}
	return false
}

// hooksIn returns the hooks of directories by file name, as the engines do: a file in a
// later directory replaces one with the same name. It skips directories that do not exist.
// The errors name files and directories for which podman refuses every container.
func hooksIn(dirs []string) (map[string]hookFile, []error) {
	all := map[string]hookFile{}
	var broken []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			broken = append(broken, fmt.Errorf("hooks_dir %s: %w", dir, err))
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".json") {
				continue
			}
			path := filepath.Join(dir, e.Name())
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a link to nothing, which the engines skip
			}
			var h hookFile
			if err == nil {
				err = json.Unmarshal(text, &h)
			}
			if err != nil {
				broken = append(broken, fmt.Errorf("%s: %w", path, err))
				continue
			}
			delete(all, pathNamed(all, e.Name()))
			all[path] = h
		}
	}
	return all, broken
}

// pathNamed returns the path with name as its last element, "" if there is no such path.
func pathNamed(all map[string]hookFile, name string) string {
	for path := range all {
		if filepath.Base(path) == name {
			return path
		}
	}
	return ""
}

// ownHooks returns the hooks that run lanyard-hook, by path.
func ownHooks(all map[string]hookFile) map[string]hookFile {
	own := map[string]hookFile{}
	for path, h := range all {
		if h.ours() {
			own[path] = h
		}
	}
	return own
}

// missingStages returns the stages that Lanyard installs and none of its hooks runs.
// "prestart" is an older name of createRuntime.
func missingStages(own map[string]hookFile) []string {
	return slices.DeleteFunc(slices.Clone(packaging.Stages), func(stage string) bool {
		for _, h := range own {
			if slices.Contains(h.Stages, stage) || stage == "createRuntime" && slices.Contains(h.Stages, "prestart") {
				return true
			}
		}
		return false
	})
}
