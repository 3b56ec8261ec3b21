package main

import (
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

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

Nothing of a running container is released: the command is always safe.`,
		Flags:  []cli.Flag{flagFormat()},
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
	l, inJSON, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	done := e.slow("looking for attachments without a container …")
	swept, err := l.Sweep(c.Context)
	done()
	if inJSON {
		var rows []gcRow
		for _, a := range swept {
			addrs := append([]netip.Prefix{}, a.Addrs...)
			rows = append(rows, gcRow{a.ID.String(), ids(a), a.State, a.Network, a.Interface, addrs})
		}
		if pErr := printJSON(e.stdout, rows); pErr != nil {
			return pErr
		}
		return err
	}
	for _, a := range swept {
		why := "its containers are gone"
		if a.State == hook.Attaching {
			why = "its hook was killed"
		}
		fmt.Fprintf(e.stdout, "released %s on network %q from %s: %s\n",
			orDash(joinPrefixes(a.Addrs)), a.Network, describe(a), why)
	}
	if len(swept) == 0 && err == nil {
		fmt.Fprintln(e.stdout, "nothing to release")
	}
	return err
}
