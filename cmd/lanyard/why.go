package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

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

ID is the id of a container, or a prefix of one. Without it, all messages are shown.

Examples:
  lanyard why
  lanyard why 3f2a9c
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
	var failures []service.Failure
	for _, f := range all {
		if strings.HasPrefix(f.Container, c.Args().First()) {
			failures = append(failures, f)
		}
	}
	if !format.table() {
		return errors.Join(printRows(e.stdout, format, failures), err)
	}
	if len(failures) == 0 && err == nil {
		if netns.HostsRoot() {
			fmt.Fprintln(e.stdout, "no failures are recorded for root since the boot")
		} else {
			fmt.Fprintf(e.stdout, "no failures are recorded for uid %d\n", os.Getuid())
		}
		return nil
	}
	table := [][]string{{"TIME", "CONTAINER", "WHY"}}
	for _, f := range failures {
		table = append(table, []string{f.At.Local().Format(time.DateTime), abbreviate(f.Container, false), f.Error})
	}
	return errors.Join(printTable(e.stdout, table), err)
}

// failuresOf returns the caller's failures, the newest last. Root's are in a directory, all
// others in the service.
func failuresOf(ctx context.Context, p wiring.Paths) ([]service.Failure, error) {
	if netns.HostsRoot() {
		return service.Kept(p.Failures()).All()
	}
	return service.Client{Socket: p.Socket}.Why(ctx)
}
