package main

import (
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
)

func (e env) hooksRemove() *cli.Command {
	return &cli.Command{
		Name:      "remove",
		Usage:     "remove the files that \"lanyard hooks install\" wrote",
		UsageText: "lanyard hooks remove [OPTIONS]",
		Description: `Examples:
  lanyard hooks remove
  lanyard hooks remove --format json

Files that were changed since, or that Lanyard did not write, are kept; the exit status is
then 1. Afterwards a container with an annotation of Lanyard starts off the LAN without an
error.`,
		Flags:  []cli.Flag{flagHooksDir(), flagFormat[engines.Change]()},
		Action: e.runHooksRemove,
	}
}

func (e env) runHooksRemove(c *cli.Context) error {
	format, dir, list, err := openHooks(c)
	if err != nil {
		return err
	}
	changes, err := engines.Remove(dir, os.Geteuid() == 0, list) // root's files serve all users
	if perr := e.printChanges(changes, format); perr != nil {
		return perr
	}
	e.noteRestart(changes, list)
	if slices.ContainsFunc(changes, func(c engines.Change) bool { return c.Action == engines.Removed }) {
		e.say("note: containers with an annotation of Lanyard now start off the LAN without an error")
	}
	if err == nil && slices.ContainsFunc(changes, func(c engines.Change) bool { return c.Action == engines.Kept }) {
		return errReported
	}
	return err
}
