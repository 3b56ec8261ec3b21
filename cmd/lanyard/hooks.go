package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
)

func (e env) hooks() *cli.Command {
	return &cli.Command{
		Name:        "hooks",
		Usage:       "make podman and CRI-O run the hook, and check that they do",
		UsageText:   "lanyard hooks COMMAND …",
		Subcommands: []*cli.Command{e.hooksInstall(), e.hooksStatus(), e.hooksRemove()},
	}
}

// flagHooksDir returns the flag for the directory of Lanyard's hooks.d files.
func flagHooksDir() cli.Flag {
	return &cli.StringFlag{Name: "dir",
		Usage: "`DIR` directory of the hooks.d files (default: share/lanyard/hooks.d next to bin)"}
}

// openHooks checks the arguments and --format of a command that changes hooks. It returns the directory
// of Lanyard's hooks.d files and the engines that they are for.
func openHooks(c *cli.Context) (f rowFormat, dir string, list []engines.Engine, err error) {
	if err = checkArgs(0, c, "argument"); err != nil {
		return f, "", nil, err
	}
	if f, err = rowFormatOf(c); err != nil {
		return f, "", nil, err
	}
	if dir, err = hooksDir(c); err != nil {
		return f, "", nil, err
	}
	list, err = installedEngines()
	return f, dir, list, err
}

// hooksDir returns the directory of Lanyard's hooks.d files.
func hooksDir(c *cli.Context) (string, error) {
	return absolute(c, "dir", "share/lanyard/hooks.d")
}

// absolute returns the path that a flag gives. Without it, the path is relative to the
// directory above the one of this program: /usr/local for /usr/local/bin/lanyard.
func absolute(c *cli.Context, flag, installed string) (string, error) {
	if path := c.String(flag); path != "" {
		if !filepath.IsAbs(path) {
			return "", usagef("--%s %q: use an absolute path: engines have other working directories", flag, path)
		}
		return filepath.Clean(path), nil
	}
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fmt.Errorf("find this program: %w: give --%s", err, flag)
	}
	return filepath.Join(filepath.Dir(filepath.Dir(self)), installed), nil
}

// installedEngines returns the engines of the calling user. podman is one of them if it is
// not installed yet, too.
func installedEngines() ([]engines.Engine, error) {
	if os.Geteuid() != 0 {
		config, err := os.UserConfigDir()
		return []engines.Engine{engines.Podman(config)}, err
	}
	list := []engines.Engine{engines.Podman("")}
	if crio := engines.CRIO(); crio.Present() {
		list = append(list, crio)
	}
	return list, nil
}

// printChanges prints what was done to each file.
func (e env) printChanges(changes []engines.Change, format rowFormat) error {
	if !format.table() {
		return printRows(e.stdout, format, changes)
	}
	done := false
	for _, c := range changes {
		switch c.Action {
		case engines.Unchanged:
		case engines.Kept:
			e.say("%s is kept: %s: remove it yourself", c.Path, c.Why)
			done = true
		default:
			fmt.Fprintf(e.stdout, "%s %s\n", c.Action, c.Path)
			done = true
		}
	}
	if !done {
		fmt.Fprintln(e.stdout, "nothing changed")
	}
	return nil
}

// noteRestart names the engines that read a changed file only when they start.
func (e env) noteRestart(changes []engines.Change, list []engines.Engine) {
	for _, engine := range list {
		for _, c := range changes {
			changed := c.Action != engines.Unchanged && c.Action != engines.Kept
			if engine.Restart != "" && c.Path == engine.DropIn && changed {
				e.say("note: %s reads this when it starts: run %q", engine.Name, engine.Restart)
			}
		}
	}
}
