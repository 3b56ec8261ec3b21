//go:build vm

package matrix

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/verify"
)

// A row is one cell as the report has it.
type row struct {
	Kernel string      `json:"kernel"`
	Fault  string      `json:"fault"`
	Place  string      `json:"place"`
	Family string      `json:"family"`
	Mode   string      `json:"mode"`
	Legacy bool        `json:"clsact_by_choice"`
	Want   verify.Code `json:"want"`
	Got    verify.Code `json:"got"`
	Text   string      `json:"text"`
	Wrong  string      `json:"wrong,omitempty"` // what is not as it must be
	Millis int64       `json:"attach_ms"`
}

type report struct{ Rows []row }

// add runs a cell, and fails the test where it is wrong.
func (r *report) add(t *testing.T, c cell, w want, run func() (outcome, error)) {
	t.Helper()
	o, err := run()
	got := row{
		Kernel: os.Getenv("LANYARD_VM"), Fault: c.fault.name, Place: c.place.name, Family: c.family.name,
		Mode: string(c.mode), Legacy: c.legacy, Want: w.code,
		Got: o.verdict.Code, Text: o.verdict.Text, Wrong: w.wrong(o), Millis: o.took.Milliseconds(),
	}
	if err != nil {
		got.Wrong = "attach failed: " + err.Error()
	}
	if got.Wrong != "" {
		t.Errorf("%s: %s", c, got.Wrong)
	}
	r.Rows = append(r.Rows, got)
}

// write leaves the report for machines and for people in the directory that is
// shared with whoever started the machine, if there is one.
func (r *report) write(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("LANYARD_OUT")
	if dir == "" {
		return
	}
	data, err := json.MarshalIndent(r.Rows, "", "  ")
	must(t, err)
	base := filepath.Join(dir, name+"-"+os.Getenv("LANYARD_VM"))
	must(t, os.WriteFile(base+".json", append(data, '\n'), 0o644))
	must(t, os.WriteFile(base+".md", []byte(r.markdown()), 0o644))
}

// markdown is a table of faults against places. A field says what all its cells
// came to and how many there were, or what some came to instead.
func (r *report) markdown() string {
	var columns, faults []string
	fields := map[[2]string][]row{}
	for _, x := range r.Rows {
		column := x.Place + " " + x.Family
		if !slices.Contains(columns, column) {
			columns = append(columns, column)
		}
		if !slices.Contains(faults, x.Fault) {
			faults = append(faults, x.Fault)
		}
		k := [2]string{x.Fault, column}
		fields[k] = append(fields[k], x)
	}
	var s strings.Builder
	good := 0
	for _, x := range r.Rows {
		if x.Wrong == "" {
			good++
		}
	}
	fmt.Fprintf(&s, "## Linux %s: %d of %d cells right\n\n", os.Getenv("LANYARD_VM"), good, len(r.Rows))
	fmt.Fprintf(&s, "| fault | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, f := range faults {
		fmt.Fprintf(&s, "| %s |", f)
		for _, c := range columns {
			fmt.Fprintf(&s, " %s |", field(fields[[2]string{f, c}]))
		}
		s.WriteString("\n")
	}
	return s.String()
}

func field(rows []row) string {
	if len(rows) == 0 {
		return ""
	}
	var bad []string
	for _, x := range rows {
		if x.Wrong != "" {
			bad = append(bad, fmt.Sprintf("**%s** (%s)", x.Got, x.Mode))
		}
	}
	if len(bad) > 0 {
		return strings.Join(bad, ", ")
	}
	return fmt.Sprintf("%s ×%d", rows[0].Got, len(rows))
}
