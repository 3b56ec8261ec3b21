package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
)

func (e env) hooksInstall() *cli.Command {
	return &cli.Command{
		Name:      "install",
		Usage:     "write the hooks.d files, and make podman and CRI-O read them",
		UsageText: "lanyard hooks install [OPTIONS]",
		Description: `Examples:
  lanyard hooks install
  lanyard hooks install --hook /opt/lanyard/libexec/lanyard/lanyard-hook
  lanyard hooks install --format json | jq -r '.[] | select(.action != "unchanged") | .path'

The command writes one hooks.d file for each stage of the hook, and adds their directory
to hooks_dir: for podman in /etc/containers/containers.conf.d/50-lanyard.conf, for CRI-O,
if it is installed, in /etc/crio/crio.conf.d/50-lanyard.conf. Directories that other files
have set before stay in the list. Run it again after such a file was changed.

A file that Lanyard did not write is not replaced. If the command fails, it changes
nothing. A user needs it only if an own containers.conf sets hooks_dir: then it writes
~/.config/containers/containers.conf.d/50-lanyard.conf.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "hook", Usage: "`PATH` of lanyard-hook (default: libexec/lanyard/lanyard-hook next to bin)"},
			flagHooksDir(), flagFormat[engines.Change](),
		},
		Action: e.runHooksInstall,
	}
}

func (e env) runHooksInstall(c *cli.Context) error {
	if err := checkArgs(0, c, "argument"); err != nil {
		return err
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	dir, err := hooksDir(c)
	if err != nil {
		return err
	}
	program, err := hookProgram(c)
	if err != nil {
		return err
	}
	list, err := installedEngines()
	if err != nil {
		return err
	}
	changes, err := engines.Install(dir, program, list)
	if os.IsPermission(err) && os.Geteuid() != 0 {
		return fmt.Errorf("%w: as root, run \"lanyard hooks install\" first", err)
	}
	if err != nil {
		return err
	}
	err = e.printChanges(changes, format)
	e.noteRestart(changes, list)
	return err
}

// hookProgram returns the path of lanyard-hook. The engines skip a hook without an error
// if its program does not exist.
func hookProgram(c *cli.Context) (string, error) {
	path, err := absolute(c, "hook", "libexec/lanyard/lanyard-hook")
	if err != nil {
		return "", err
	}
	if filepath.Base(path) != "lanyard-hook" {
		return "", usagef("--hook %q: the program's name is lanyard-hook", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%w: install it there, or give its path with --hook", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return "", fmt.Errorf("%s is not executable: chmod +x", path)
	}
	return path, nil
}
