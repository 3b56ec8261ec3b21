package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify"
)

func (e env) restore() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "create the networks' links again after a boot",
		UsageText: "lanyard restore [OPTIONS]",
		Description: `Examples:
  lanyard restore
  systemctl enable lanyard-restore.service
  lanyard restore --format json | jq -r '.[] | select(.error) | .network'

The command creates the links that Lanyard had created before: VLAN sub-interfaces and
dummies. It also loads the trunk programs. A link that existed before its network belongs
to the administrator: if it is missing, that is an error, and the exit status is 1. The
first container that asks for a network does the same for that network. Running containers
that have lost their interface with its parent are notes: see "lanyard reattach".`,
		Flags:  []cli.Flag{flagFormat[restoreRow]()},
		Action: e.runRestore,
	}
}

// restoreRow is one network in the JSON of "restore".
type restoreRow struct {
	Network   string `json:"network"`
	Parent    string `json:"parent"`
	Created   bool   `json:"created"`             // the parent was missing, and was created
	Unwatched string `json:"unwatched,omitempty"` // why its trunk is not watched
	Error     string `json:"error,omitempty"`
}

func (e env) runRestore(c *cli.Context) error {
	l, format, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	done := e.slow("creating the networks' links …")
	all, err := l.Restore(c.Context)
	done()
	e.noteLost(c.Context, l)
	var rows []restoreRow
	for _, r := range all {
		row := restoreRow{Network: r.Network, Parent: r.Parent, Created: r.Made, Unwatched: r.Blind}
		if r.Err != nil {
			row.Error = r.Err.Error()
			e.say("network %q: %v", r.Network, r.Err)
			if err == nil {
				err = errReported
			}
		}
		rows = append(rows, row)
	}
	pErr := printRestored(e, rows, format)
	if err == nil {
		err = pErr
	}
	return err
}

// noteLost names the running containers that have lost their interface with its parent.
func (e env) noteLost(ctx context.Context, l *wiring.Lanyard) {
	lost, err := l.ParentFaults(ctx)
	if err != nil {
		e.say("%v", err)
	}
	for _, h := range lost {
		if h.Kind == verify.Kind(verify.InterfaceGone) {
			e.say("note: %s on network %q: %s", describe(*h.Attachment), h.Network, h)
		}
	}
}

func printRestored(e env, rows []restoreRow, format rowFormat) error {
	if !format.table() {
		return printRows(e.stdout, format, rows)
	}
	table := [][]string{{"NETWORK", "PARENT", "STATE"}}
	for _, r := range rows {
		state := "present"
		switch {
		case r.Error != "":
			state = "failed"
		case r.Created:
			state = "created"
		}
		table = append(table, []string{r.Network, r.Parent, state})
	}
	return printTable(e.stdout, table)
}
