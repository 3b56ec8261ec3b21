package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/hook"
)

func (e env) gc() *cli.Command {
	return &cli.Command{
		Name:      "gc",
		Usage:     "take back what killed hooks and vanished containers left",
		UsageText: "lanyard gc [OPTIONS]",
		Description: `Examples:
  lanyard gc
  lanyard gc --format json | jq length
  lanyard gc --pod prod/web-0

What a container that runs holds is never touched. It is always safe to run. What a
Kubernetes pod holds stays while the network namespace of its sandbox lives, also while
none of its containers runs. Where an engine has left such a namespace behind, --pod
takes back what the pod holds; it refuses while a container of the pod runs.`,
		Flags: []cli.Flag{
			flagFormat(),
			&cli.StringFlag{Name: "pod", Usage: "`POD` without running containers to take back alone: NAMESPACE/NAME, or the id of its sandbox (default: none)"},
		},
		Action: e.runGC,
	}
}

// gcRow is one attachment taken back, in the JSON of "gc".
type gcRow struct {
	Attachment string         `json:"attachment"`
	Containers []string       `json:"containers"`
	State      hook.State     `json:"state"` // how far it had come
	Network    string         `json:"network"`
	Interface  string         `json:"interface"`
	Addresses  []netip.Prefix `json:"addresses"`
}

func (e env) runGC(c *cli.Context) error {
	l, inJSON, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	done := e.slow("looking for what nobody holds any more …")
	sweep := l.Sweep
	if pod := c.String("pod"); pod != "" {
		sweep = func(ctx context.Context) ([]hook.Attachment, error) { return l.ReleasePod(ctx, pod) }
	}
	swept, err := sweep(c.Context)
	done()
	if inJSON {
		var rows []gcRow
		for _, a := range swept {
			rows = append(rows, gcRow{a.ID.String(), ids(a), a.State, a.Network, a.Interface, append([]netip.Prefix{}, a.Addrs...)})
		}
		if pErr := printJSON(e.stdout, rows); pErr != nil {
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
		case a.Pod.Sandbox != "":
			why = "its interface is gone"
		}
		fmt.Fprintf(e.stdout, "took back %s on network %q from %s: %s\n", orDash(joinPrefixes(a.Addrs)), a.Network, whose(a), why)
	}
	if len(swept) == 0 && err == nil {
		fmt.Fprintln(e.stdout, "nothing to take back")
	}
	return err
}
