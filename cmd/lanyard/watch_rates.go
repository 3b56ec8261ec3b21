package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// clearScreen moves the cursor to the top and erases what is below it (ECMA-48, CUP and ED).
const clearScreen = "\x1b[H\x1b[J"

// watchRates prints the rates of VLANs and containers once a second, of all or of what filter names. On a
// terminal, each table replaces the one before.
func (e env) watchRates(c *cli.Context, l *wiring.Lanyard, filter string) error {
	before, err := e.rateReading(c, l, filter)
	for lines := screenLines(e.stdout); err == nil; {
		select {
		case <-c.Done():
			return nil
		case <-time.After(rateInterval):
		}
		var now overview.Reading
		if now, err = e.rateReading(c, l, filter); err != nil {
			break
		}
		rates := overview.RatesOf(before.Rows, now.Rows, now.At.Sub(before.At))
		before = now
		if err := printRates(e.stdout, now, rates, lines); err != nil || c.Bool("once") {
			return err
		}
	}
	if c.Err() != nil {
		return nil // interrupted
	}
	return err
}

// rateReading reads the attachments that filter names.
func (e env) rateReading(c *cli.Context, l *wiring.Lanyard, filter string) (r overview.Reading, err error) {
	targets, err := verifyTargets(c.Context, l, filter, c.NArg() == 0)
	if err != nil {
		return r, err
	}
	wanted := map[string]bool{}
	for _, a := range targets {
		wanted[a.ID.String()] = true
	}
	r, unread, err := overview.Read(c.Context, l)
	if unread != nil {
		e.say("%v", unread)
	}
	r.Rows = slices.DeleteFunc(r.Rows, func(row overview.Row) bool { return !wanted[row.Attachment] })
	return r, err
}

// screenLines returns the height of the terminal w, 0 if w is not a terminal.
func screenLines(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Row)
}

// printRates prints the tables: all of them, or what fits on a screen of so many lines.
func printRates(w io.Writer, r overview.Reading, rates overview.Rates, lines int) error {
	var out bytes.Buffer
	if err := printTable(&out, vlanRates(r, rates)); err != nil {
		return err
	}
	fmt.Fprintln(&out)
	if err := printTable(&out, containerRates(r.Rows, rates)); err != nil {
		return err
	}
	text := out.Bytes()
	if lines > 0 {
		all := bytes.SplitAfter(text, []byte("\n"))
		text = append([]byte(clearScreen), bytes.Join(all[:min(len(all), lines-1)], nil)...)
	}
	_, err := w.Write(text)
	return err
}

// vlanRates returns the table of the VLANs, with the sums of their containers' rates.
func vlanRates(r overview.Reading, rates overview.Rates) [][]string {
	type vlan struct{ trunk, tags string }
	sums, counts := map[vlan]overview.Rate{}, map[vlan]int{}
	shown := map[string]bool{}
	for _, row := range r.Rows {
		shown[row.Attachment] = true
	}
	for _, a := range r.Records {
		if !shown[a.ID.String()] {
			continue
		}
		v, rate := vlan{a.Trunk, cmp.Or(overview.VLAN(a.Endpoint.Tags), "untagged")}, rates[a.ID.String()]
		sum := sums[v]
		sums[v] = overview.Rate{Out: sum.Out + rate.Out, In: sum.In + rate.In}
		counts[v]++
	}
	table := [][]string{{"TRUNK", "VLAN", "INTERFACES", "OUT", "IN"}}
	for _, v := range slices.SortedFunc(maps.Keys(sums), func(a, b vlan) int {
		return cmp.Or(compareRates(sums[b], sums[a]), cmp.Compare(a.trunk, b.trunk), cmp.Compare(a.tags, b.tags))
	}) {
		table = append(table, []string{
			v.trunk, v.tags, fmt.Sprint(counts[v]), overview.Bytes(sums[v].Out) + "/s", overview.Bytes(sums[v].In) + "/s",
		})
	}
	return table
}

// compareRates compares the sums of both directions.
func compareRates(a, b overview.Rate) int { return cmp.Compare(a.Out+a.In, b.Out+b.In) }

// containerRates returns the table of the containers, those with the highest rates first.
func containerRates(rows []overview.Row, rates overview.Rates) [][]string {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b overview.Row) int {
		return cmp.Or(compareRates(rates[b.Attachment], rates[a.Attachment]), cmp.Compare(a.Container, b.Container))
	})
	table := [][]string{{"CONTAINER", "NETWORK", "ADDRESS", "VLAN", "VERDICT", "OUT", "IN", "ANOMALIES"}}
	for _, r := range rows {
		out, in := "", ""
		if rate, known := rates[r.Attachment]; known {
			out, in = overview.Bytes(rate.Out)+"/s", overview.Bytes(rate.In)+"/s"
		}
		table = append(table, []string{
			cmp.Or(abbreviate(r.Container, false), r.Pod), r.Network, overview.JoinPrefixes(r.Addresses), r.VLAN,
			string(r.Verdict), out, in, fmt.Sprint(overview.AnomalyFrames(r)),
		})
	}
	return table
}
