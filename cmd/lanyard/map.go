package main

import (
	"context"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

func (e env) mapping() *cli.Command {
	return &cli.Command{
		Name:      "map",
		Usage:     "draw the host's trunks, VLANs, networks and containers, with verdicts",
		UsageText: "lanyard map [OPTIONS]",
		Description: `Examples:
  lanyard map
  lanyard map --rate 1s
  lanyard map --out map.svg

A container's line has its address, its verdict as in "lanyard ps", and how many anomalies the
trunk has seen since its start, such as another station with its address. Each line that does not
work begins with "!". A trunk's line has the switch's port: from lldpd where it runs, else as
"lanyard lldp" or "doctor --lldp" has last heard it.

With --rate the command counts each container's bytes on the trunk for that time.
With --out it draws the same as an SVG that needs no other file.`,
		Flags: []cli.Flag{
			flagFormat[overview.Node](),
			&cli.StringFlag{Name: "out", Usage: "`FILE` to write an SVG to (default: no SVG, text on stdout)"},
			&cli.StringFlag{Name: "rate", Usage: "`DURATION` how long to count bytes (default: not at all)"},
		},
		Action: e.runMap,
	}
}

func (e env) runMap(c *cli.Context) error {
	rate, err := listenTime(c, "rate")
	if err != nil {
		return err
	}
	l, format, err := openListing(0, c, "argument")
	if err != nil {
		return err
	}
	defer l.Close()
	if c.String("out") != "" && !format.table() {
		return usagef("--out and --format cannot be used together: --out always writes an SVG")
	}
	rows, err := e.mapRows(c.Context, l)
	if err != nil {
		return err
	}
	started := time.Now()
	port := func(trunk string) lldp.Known {
		k, err := paths(c).Switches().Ask(c.Context, trunk)
		if err != nil {
			e.say("switch port of trunk %q: %v", trunk, err)
		}
		return k
	}
	host := overview.Draw(l, port, rows)
	if rate > 0 {
		select {
		case <-c.Done():
			return c.Err()
		case <-time.After(rate):
		}
		later, err := e.mapRows(c.Context, l)
		if err != nil {
			return err
		}
		host.AddRates(overview.RatesOf(rows, later, time.Since(started)))
	}
	switch out := c.String("out"); {
	case out != "":
		svg, err := host.SVG()
		if err != nil {
			return err
		}
		return os.WriteFile(out, svg, 0o644)
	case !format.table():
		return printRows(e.stdout, format, []*overview.Node{host})
	}
	host.Print(e.stdout, "", "")
	return nil
}

// mapRows returns the rows of ps.
func (e env) mapRows(ctx context.Context, l *wiring.Lanyard) ([]overview.Row, error) {
	r, unread, err := overview.Read(ctx, l)
	if unread != nil {
		e.say("%v", unread)
	}
	return r.Rows, err
}
