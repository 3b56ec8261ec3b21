package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
)

// flagQuiet returns the flag --quiet, which prints only what is named.
func flagQuiet(what string) cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only " + what}
}

// printJSON writes a list as indented JSON. An empty list is [], not null.
func printJSON[T any](w io.Writer, v []T) error {
	if v == nil {
		v = []T{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printTable writes rows in columns. The first row contains the names of the columns.
func printTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, cell := range r {
			cells[i] = clean(cell)
		}
		// Trailing tabs would leave blanks at the end of the line.
		fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	return t.Flush()
}

// clean replaces control characters: container ids and link names are untrusted and must
// not break the line or change the terminal.
func clean(cell string) string { return overview.Printable(orDash(cell)) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
