package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
)

func (e env) gc() *cli.Command {
	return &cli.Command{
		Name:      "gc",
		Usage:     "release what killed hooks and vanished containers left",
		UsageText: "lanyard gc [OPTIONS]",
		Description: `Examples:
  lanyard gc
  lanyard gc --format json | jq length
  lanyard gc --pod prod/web-0

Nothing of a running container is released: the command is always safe. A Kubernetes pod
keeps its interface and address while the network namespace of its sandbox exists, also
while none of its containers runs. If an engine has left such a namespace behind, --pod
releases what the pod holds, unless a container of the pod runs.`,
		Flags: []cli.Flag{
			flagFormat[gcRow](),
			&cli.StringFlag{Name: "pod",
				Usage: "`POD` to release, and nothing else: NAMESPACE/NAME, or the id of its sandbox (default: none)"},
		},
		Action: e.runGC,
	}
}

// gcRow is one released attachment in the JSON of "gc".
type gcRow struct {
	Attachment string         `json:"attachment"`
	Containers []string       `json:"containers"`
	State      hook.State     `json:"state"` // before it was released
	Network    string         `json:"network"`
	Interface  string         `json:"interface"`
	Addresses  []netip.Prefix `json:"addresses"`
}

func (e env) runGC(c *cli.Context) error {
	l, format, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	done := e.slow("looking for attachments without a container …")
	sweep := l.Sweep
	if pod := c.String("pod"); pod != "" {
		sweep = func(ctx context.Context) ([]hook.Attachment, error) { return l.ReleasePod(ctx, pod) }
	}
	swept, err := sweep(c.Context)
	done()
	if !format.table() {
		var rows []gcRow
		for _, a := range swept {
			addrs := append([]netip.Prefix{}, a.Addrs...)
			rows = append(rows, gcRow{a.ID.String(), ids(a), a.State, a.Network, a.Interface, addrs})
		}
		if pErr := printRows(e.stdout, format, rows); pErr != nil {
			return pErr
		}
		return err
	}
	for _, a := range swept {
		why := "its containers are gone"
		switch {
		case a.State == hook.Attaching:
			why = "its hook was killed"
		case c.String("pod") != "":
			why = "none of its containers runs"
		case a.WithNetns():
			why = "its interface is gone"
		}
		fmt.Fprintf(e.stdout, "released %s on network %q from %s: %s\n",
			orDash(overview.JoinPrefixes(a.Addrs)), a.Network, describe(a), why)
	}
	if len(swept) == 0 && err == nil {
		fmt.Fprintln(e.stdout, "nothing to release")
	}
	return err
}
