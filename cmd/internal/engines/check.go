package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// State is the result of a check.
type State string

// The states of a check. Wrong means that containers do not start, or start off the LAN.
const (
	OK      State = "ok"
	Warning State = "warning"
	Wrong   State = "wrong"
)

// Check is one result: what was checked, and in Text what was found and what to do.
type Check struct {
	Engine    string `json:"engine"`
	Check     string `json:"check"` // hooks_dir, files, program, containers
	State     State  `json:"state"`
	Container string `json:"container,omitempty"` // the id, if the check is about one container
	Text      string `json:"text"`
}

// Check checks that the engine runs Lanyard's hooks in every stage. dir is the directory
// of Lanyard's hooks.d files, for remedies.
func (e Engine) Check(ctx context.Context, dir string) []Check {
	settings, err := e.Settings()
	if err != nil {
		text := fmt.Sprintf("%v: %s does not start: correct the file", err, e.Name)
		return []Check{{e.Name, "hooks_dir", Wrong, "", text}}
	}
	set, last := Effective(settings)
	dirs, file, checks := e.asReported(ctx, set, last)
	checks = append(checks, e.checkDirs(dirs, file)...)
	all, broken := hooksIn(dirs)
	for _, err := range broken {
		text := fmt.Sprintf("%v: %s refuses every container: correct or remove it", err, e.Name)
		checks = append(checks, Check{e.Name, "files", Wrong, "", text})
	}
	own := ownHooks(all)
	if len(own) == 0 {
		remedy := `run "lanyard hooks install"`
		if file != e.DropIn && slices.ContainsFunc(settings, func(s Setting) bool { return s.File == e.DropIn }) {
			remedy = fmt.Sprintf("add %q to hooks_dir there", dir)
		}
		text := fmt.Sprintf("no file of Lanyard is in hooks_dir %q, %s: containers start off the LAN without an error: %s",
			dirs, setBy(file), remedy)
		return append(checks, Check{e.Name, "files", Wrong, "", text})
	}
	return append(checks, append(e.checkFiles(own), e.checkPrograms(own)...)...)
}

// byReport is in place of a file if only podman's own report is known.
const byReport = `as "podman --help" reports`

func setBy(file string) string {
	switch file {
	case "":
		return "the default"
	case byReport:
		return file
	}
	return "set by " + file
}

// asReported returns the directories that the engine itself reports, and file unless they
// differ from those in its files. The engine also reads what this package does not know, such
// as files that later versions added.
func (e Engine) asReported(ctx context.Context, dirs []string, file string) ([]string, string, []Check) {
	reported, known, err := e.reports(ctx)
	if err != nil {
		return dirs, file, []Check{{e.Name, "hooks_dir", Warning, "", err.Error()}}
	}
	if !known || slices.Equal(reported, dirs) {
		return dirs, file, nil
	}
	text := fmt.Sprintf("podman reports hooks_dir %q, and its configuration files set %q: look for CONTAINERS_CONF "+
		"in the environment, and for further configuration files", reported, dirs)
	return reported, byReport, []Check{{e.Name, "hooks_dir", Warning, "", text}}
}

// checkDirs checks the directories themselves.
func (e Engine) checkDirs(dirs []string, file string) (checks []Check) {
	add := func(state State, format string, args ...any) {
		checks = append(checks, Check{e.Name, "hooks_dir", state, "", fmt.Sprintf(format, args...)})
	}
	if len(dirs) == 0 {
		add(Wrong, "hooks_dir is empty, %s: no hook runs: remove the setting", setBy(file))
	}
	for _, d := range dirs {
		info, err := os.Stat(d)
		switch {
		case !filepath.IsAbs(d):
			add(Wrong, "hooks_dir %q, %s, is relative: %s reads it from its working directory, and skips it elsewhere: "+
				"write an absolute path", d, setBy(file), e.Name)
		case errors.Is(err, fs.ErrNotExist):
			if d != defaultDir {
				add(Warning, "hooks_dir %s, %s, does not exist: %s skips it without an error", d, setBy(file), e.Name)
			}
		case err != nil:
			add(Wrong, "hooks_dir %s: %v", d, err)
		case e.hidden(info, 0o005):
			add(Warning, "hooks_dir %s is not readable for users: rootless podman refuses every container: chmod o+rx", d)
		}
	}
	if len(checks) == 0 {
		add(OK, "%s (%s)", strings.Join(dirs, ", "), setBy(file))
	}
	return checks
}

// hidden reports whether other users lack a permission that rootless podman needs.
func (e Engine) hidden(info fs.FileInfo, perm fs.FileMode) bool {
	return e.Program == "podman" && os.Geteuid() == 0 && info.Mode().Perm()&perm != perm
}

// helpHooksDir matches a line of "podman --help". There is no default if the list is empty.
var helpHooksDir = regexp.MustCompile(`--hooks-dir .*?(?:\(default \[(.*)\]\))?\n`)

// reports returns the directories that podman itself reports. known is false for other
// engines, and if podman is not installed or says nothing of them.
func (e Engine) reports(ctx context.Context) (dirs []string, known bool, err error) {
	if e.Program != "podman" {
		return nil, false, nil
	}
	out, err := output(ctx, "podman", "--help")
	if errors.Is(err, errNotInstalled) {
		return nil, false, nil
	}
	found := helpHooksDir.FindSubmatch(out)
	if found == nil || err != nil {
		return nil, false, err
	}
	if list := string(found[1]); list != "" {
		dirs = strings.Split(list, ",")
	}
	return dirs, true, nil
}

// checkFiles checks that the hooks match Lanyard's annotations and cover all stages.
func (e Engine) checkFiles(own map[string]hookFile) (checks []Check) {
	add := func(state State, format string, args ...any) {
		checks = append(checks, Check{e.Name, "files", state, "", fmt.Sprintf(format, args...)})
	}
	paths := slices.Sorted(maps.Keys(own))
	for _, path := range paths {
		if !own[path].matches() {
			add(Wrong, "%s does not match the annotation io.lanyard.network: remove it, and run \"lanyard hooks install\"", path)
		}
		if info, err := os.Stat(path); err == nil && e.hidden(info, 0o004) {
			add(Warning, "%s is not readable for users: rootless podman refuses every container: chmod o+r", path)
		}
	}
	for _, stage := range missingStages(own) {
		add(Wrong, "no file runs the hook in stage %s: %s: run \"lanyard hooks install\"", stage, without[stage])
	}
	if len(checks) == 0 {
		add(OK, "%s", strings.Join(paths, ", "))
	}
	return checks
}

// without is what a container lacks if a stage does not run the hook.
var without = map[string]string{
	"createRuntime":   "containers start off the LAN without an error",
	"createContainer": "containers get no resolv.conf with the network's name servers",
	"poststop":        "addresses are released only by \"lanyard gc\"",
}

// checkPrograms checks the programs that the hooks run.
func (e Engine) checkPrograms(own map[string]hookFile) (checks []Check) {
	programs := map[string]bool{}
	for _, h := range own {
		programs[h.Hook.Path] = true
	}
	for _, path := range slices.Sorted(maps.Keys(programs)) {
		c := Check{e.Name, "program", OK, "", path}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.State = Wrong
			c.Text = fmt.Sprintf("%s does not exist: %s skips the hook without an error, and containers start off the LAN: "+
				"install it, or run \"lanyard hooks install --hook PATH\"", path, e.Name)
		case err != nil:
			c.State, c.Text = Wrong, fmt.Sprintf("%s: %v", path, errors.Unwrap(err))
		case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
			c.State, c.Text = Wrong, fmt.Sprintf("%s is not executable: containers do not start: chmod +x", path)
		case e.hidden(info, 0o001):
			c.State = Warning
			c.Text = fmt.Sprintf("%s is not executable for users: rootless containers do not start: chmod o+x", path)
		}
		checks = append(checks, c)
	}
	return checks
}
