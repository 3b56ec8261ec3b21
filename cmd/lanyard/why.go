package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/engines"
	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

func (e env) why() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "show why your containers were not attached",
		UsageText: "lanyard why [OPTIONS] [ID]",
		Description: `Some runtimes (crun) only show that a hook failed, and not its message. Lanyard keeps
the last messages: for root's containers until the next boot, for a user's rootless
containers in the service until it restarts. Each user sees their own.

ID is the id of a container, or a prefix of one; or its name, if your podman or Docker still has
the container. Without it, all messages are shown.

Examples:
  lanyard why
  lanyard why 3f2a9c
  lanyard why my-container
  lanyard why --format json | jq -r '.[-1].error'`,
		Flags:  []cli.Flag{flagFormat[service.Failure]()},
		Action: e.runWhy,
	}
}

func (e env) runWhy(c *cli.Context) error {
	if c.NArg() > 1 {
		return checkArgs(1, c, "ID")
	}
	format, err := rowFormatOf(c)
	if err != nil {
		return err
	}
	all, err := failuresOf(c.Context, paths(c))
	if len(all) == 0 && err != nil {
		return err
	}
	id := c.Args().First()
	failures := failuresOfContainer(c.Context, all, id)
	if !format.table() {
		return errors.Join(printRows(e.stdout, format, failures), err)
	}
	if len(failures) == 0 && err == nil {
		of := ""
		if id != "" {
			of = fmt.Sprintf(" of container %q", id)
		}
		if netns.HostsRoot() {
			fmt.Fprintf(e.stdout, "no failures%s are recorded for root since the boot\n", of)
		} else {
			fmt.Fprintf(e.stdout, "no failures%s are recorded for uid %d\n", of, os.Getuid())
		}
		return nil
	}
	table := [][]string{{"TIME", "CONTAINER", "WHY"}}
	for _, f := range failures {
		table = append(table, []string{f.At.Local().Format(time.DateTime), abbreviate(f.Container, false), f.Error})
	}
	return errors.Join(printTable(e.stdout, table), err)
}

// failuresOfContainer returns the failures of a container by its id, a prefix of it, or its name, as idOf
// does; all of them for "".
func failuresOfContainer(ctx context.Context, all []service.Failure, id string) (found []service.Failure) {
	known := func(f service.Failure) bool {
		return f.Container == id || len(id) >= overview.ShownID && strings.HasPrefix(f.Container, id)
	}
	if id != "" && !slices.ContainsFunc(all, known) {
		named, err := engines.ContainerID(ctx, id)
		if err == nil && named != "" && !strings.HasPrefix(named, id) {
			id = named
		}
	}
	for _, f := range all {
		if strings.HasPrefix(f.Container, id) {
			found = append(found, f)
		}
	}
	return found
}

// failuresOf returns the caller's failures, the newest last. Root's are in a directory, all
// others in the service.
func failuresOf(ctx context.Context, p wiring.Paths) ([]service.Failure, error) {
	if netns.HostsRoot() {
		return service.Kept(p.Failures()).All()
	}
	return service.Client{Socket: p.Socket}.Why(ctx)
}
