package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// updateDocs writes the results into the tables of the documentation, which are found by their first
// line. A subject that was not measured leaves its table or its row as it was.
func (r *results) updateDocs(dir string) error {
	const (
		costs   = "| | lanyard-hook | " + cni + " | " + netavark + " | " + floor + " |"
		targets = "| ratio | target | measured | | why |"
	)
	return errors.Join(updateTable(filepath.Join(dir, "README.md"), costs, r.costRow),
		updateTable(filepath.Join(dir, "docs", "notes", "performance.md"), targets, r.targetRow))
}

// updateTable calls change with the cells of each row of the table in a Markdown file.
func updateTable(file, head string, change func(cells []string)) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, table, found := bytes.Cut(b, []byte("\n"+head+"\n"))
	if !found {
		return fmt.Errorf("%s: it has no table that begins with %q", file, head)
	}
	out := bytes.NewBuffer(append(before, "\n"+head+"\n"...))
	inTable := true
	for line := range strings.Lines(string(table)) {
		inTable = inTable && strings.HasPrefix(line, "|")
		if inTable && !strings.HasPrefix(line, "|--") {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			change(cells)
			line = row(cells)
		}
		out.WriteString(line)
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// row returns a line of a table.
func row(cells []string) string {
	line := "|"
	for _, c := range cells {
		if c != "" {
			line += " " + c
		}
		line += " |"
	}
	return line + "\n"
}

// costRow fills the row "attach" or "detach" of README's table.
func (r *results) costRow(cells []string) {
	for i, name := range []string{ours, cni, netavark, floor} {
		s := r.find(cells[0], name)
		if s == nil || i+1 >= len(cells) {
			continue
		}
		cells[i+1] = fmt.Sprintf("%.1f", s.Median)
		if g := r.find(cells[0], guarded); name == ours && cells[0] == "attach" && g != nil {
			cells[i+1] += fmt.Sprintf(" (rootless: %.1f)", g.Median)
		}
	}
}

// targetRow fills the row of a ratio, and keeps the reason.
func (r *results) targetRow(cells []string) {
	for _, x := range r.Ratios {
		if x.Name == cells[0] && len(cells) > 3 {
			cells[1], cells[2], cells[3] = x.bound(), x.measured(), x.verdict()
		}
	}
}
