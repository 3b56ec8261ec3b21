package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook/broker"
)

func (e env) why() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "show why your rootless containers were not attached",
		UsageText: "lanyard why [OPTIONS] [ID]",
		Description: `For users without privilege: some runtimes (crun) only show that a hook failed, and not
its message. The broker keeps the last messages for you until it restarts.

ID is the id of a container, or a prefix of one. Without it, all messages are shown.

Examples:
  lanyard why
  lanyard why 3f2a9c
  lanyard why --format json | jq -r '.[-1].error'`,
		Flags:  []cli.Flag{flagFormat()},
		Action: e.runWhy,
	}
}

func (e env) runWhy(c *cli.Context) error {
	if c.NArg() > 1 {
		return checkArgs(1, c, "ID")
	}
	inJSON, err := asJSON(c)
	if err != nil {
		return err
	}
	all, err := broker.Client{Socket: paths(c).Socket}.Why(c.Context)
	if err != nil {
		return err
	}
	var failures []broker.Failure
	for _, f := range all {
		if strings.HasPrefix(f.Container, c.Args().First()) {
			failures = append(failures, f)
		}
	}
	if inJSON {
		return printJSON(e.stdout, failures)
	}
	if len(failures) == 0 {
		fmt.Fprintf(e.stdout, "no failures are recorded for uid %d\n", os.Getuid())
		return nil
	}
	table := [][]string{{"TIME", "CONTAINER", "WHY"}}
	for _, f := range failures {
		table = append(table, []string{f.At.Local().Format(time.DateTime), abbreviate(f.Container, false), f.Error})
	}
	return printTable(e.stdout, table)
}
