package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
)

// Flags that every listing has.
func flagFormat() cli.Flag {
	return &cli.StringFlag{Name: "format", Value: "table", Usage: "`FORMAT` table or json (default: table)"}
}

func flagQuiet(what string) cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print " + what + " only"}
}

// asJSON reads --format.
func asJSON(c *cli.Context) (bool, error) {
	switch f := c.String("format"); f {
	case "json":
		return true, nil
	case "table":
		return false, nil
	default:
		return false, usagef("--format %q: use table or json", f)
	}
}

// printJSON writes a value as people and jq read it. A list without members is
// [], not null.
func printJSON[T any](w io.Writer, v []T) error {
	if v == nil {
		v = []T{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printTable writes rows in columns, the first row being their names.
func printTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, cell := range r {
			cells[i] = clean(cell)
		}
		// An empty last cell must not leave blanks at a line's end.
		fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	return t.Flush()
}

// clean keeps a cell on its line and the terminal in its state: container ids
// and link names come from others.
func clean(cell string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, orDash(cell))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// rounded keeps three digits of a duration: people compare these figures,
// machines have them exact from JSON.
func rounded(d time.Duration) string {
	if d == 0 {
		return ""
	}
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
