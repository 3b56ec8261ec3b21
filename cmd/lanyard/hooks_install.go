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
  lanyard hooks install --docker
  lanyard hooks install --hook /opt/lanyard/libexec/lanyard/lanyard-hook
  lanyard hooks install --format json | jq -r '.[] | select(.action != "unchanged") | .path'

The command writes one hooks.d file for each stage of the hook, and adds their directory
to hooks_dir: for podman in /etc/containers/containers.conf.d/50-lanyard.conf, for CRI-O,
if it is installed, in /etc/crio/crio.conf.d/50-lanyard.conf. Directories that other files
have set before stay in the list. Run it again after such a file was changed.

With --docker it also writes /etc/cdi/lanyard.json, the CDI device io.lanyard/lan=on, which
makes Docker run the hook. Without it, it only corrects a file that exists.

A file that Lanyard did not write is not replaced. If the command fails, it changes
nothing. A user needs it only if an own containers.conf sets hooks_dir: then it writes
~/.config/containers/containers.conf.d/50-lanyard.conf.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "hook", Usage: "`PATH` of lanyard-hook (default: libexec/lanyard/lanyard-hook next to bin)"},
			&cli.BoolFlag{Name: "docker", Usage: "write the CDI specification for Docker"},
			flagHooksDir(), flagFormat[engines.Change](),
		},
		Action: e.runHooksInstall,
	}
}

func (e env) runHooksInstall(c *cli.Context) error {
	format, dir, list, err := openHooks(c)
	if err != nil {
		return err
	}
	program, err := hookProgram(c)
	if err != nil {
		return err
	}
	more, err := forDocker(c, program)
	if err != nil {
		return err
	}
	changes, err := engines.Install(dir, program, list, more...)
	if os.IsPermission(err) && os.Geteuid() != 0 {
		return fmt.Errorf("%w: as root, run \"lanyard hooks install\" first", err)
	}
	if err != nil {
		return err
	}
	err = e.printChanges(changes, format)
	e.noteRestart(changes, list)
	if c.Bool("docker") {
		e.say("note: Docker before 28.2 reads it only with \"features\": {\"cdi\": true} in /etc/docker/daemon.json: " +
			"\"lanyard hooks status\" checks that")
	}
	return err
}

// forDocker returns the CDI specification, if --docker is set or if an earlier one exists, which may
// name another program.
func forDocker(c *cli.Context, program string) ([]engines.File, error) {
	_, err := os.Stat(engines.CDISpec)
	switch root := os.Geteuid() == 0; {
	case c.Bool("docker") && !root:
		return nil, usagef("--docker: only root can write %s", engines.CDISpec)
	case root && (c.Bool("docker") || err == nil):
		return []engines.File{engines.CDIFile(engines.CDISpec, program)}, nil
	}
	return nil, nil
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
