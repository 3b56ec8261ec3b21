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
		Usage:     "take back what killed hooks and vanished containers left",
		UsageText: "lanyard gc [OPTIONS]",
		Description: `Examples:
  lanyard gc
  lanyard gc --format json | jq length

What a container that runs holds is never touched. It is always safe to run.`,
		Flags:  []cli.Flag{flagFormat()},
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
	swept, err := l.Sweep(c.Context)
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
		if a.State == hook.Attaching {
			why = "its hook was killed"
		}
		fmt.Fprintf(e.stdout, "took back %s on network %q from %s: %s\n", orDash(joinPrefixes(a.Addrs)), a.Network, describe(a), why)
	}
	if len(swept) == 0 && err == nil {
		fmt.Fprintln(e.stdout, "nothing to take back")
	}
	return err
}
