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

// A row is one cell in the report.
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
	Wrong  string      `json:"wrong,omitempty"` // differences from the expected result
	Millis int64       `json:"attach_ms"`
	Again  int         `json:"again,omitzero"` // number of repetitions because the machine stalled
}

type report struct{ Rows []row }

// run attaches in a cell, and fails the test if the result is not the expected one. The report
// counts the repetitions.
func (c cell) run(t *testing.T, b *bench) row {
	t.Helper()
	w := c.want(b)
	o, again, err := b.attachRetryingStalls(c, func(o outcome) bool { return w.wrong(o) == "" })
	got := row{
		Kernel: os.Getenv("LANYARD_VM"), Fault: c.fault.name, Place: c.segment.name, Family: c.family.name,
		Mode: string(c.mode), Legacy: c.legacy, Want: w.code,
		Got: o.verdict.Code, Text: o.verdict.Text, Wrong: w.wrong(o), Millis: o.took.Milliseconds(), Again: again,
	}
	if err != nil {
		got.Wrong = "attach failed: " + err.Error()
	}
	if got.Wrong != "" {
		t.Errorf("%s: %s", c, got.Wrong)
	}
	return got
}

// write writes the report, for machines and for readers, into the directory that is shared with the
// machine's host, if there is one.
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

// markdown returns a table of faults against segments.
func (r *report) markdown() string {
	var columns []string
	fields := map[[2]string][]row{}
	for _, x := range r.Rows {
		column := x.Place + " " + x.Family
		if !slices.Contains(columns, column) {
			columns = append(columns, column)
		}
		k := [2]string{x.Fault, column}
		fields[k] = append(fields[k], x)
	}
	var s strings.Builder
	good, again := 0, 0
	for _, x := range r.Rows {
		again += x.Again
		if x.Wrong == "" {
			good++
		}
	}
	fmt.Fprintf(&s, "## Linux %s: %d of %d cells right\n\n", os.Getenv("LANYARD_VM"), good, len(r.Rows))
	if again > 0 {
		fmt.Fprintf(&s, "The machine stalled %d times, and the cell was repeated.\n\n", again)
	}
	fmt.Fprintf(&s, "| fault | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, f := range faults {
		fmt.Fprintf(&s, "| %s |", f.name)
		for _, c := range columns {
			fmt.Fprintf(&s, " %s |", field(fields[[2]string{f.name, c}]))
		}
		s.WriteString("\n")
	}
	return s.String()
}

// field counts the verdicts of the cells. Wrong ones are in bold.
func field(rows []row) string {
	var list []string
	count := map[string]int{}
	for _, x := range rows {
		code := string(x.Got)
		if x.Wrong != "" {
			code = fmt.Sprintf("**%s** (%s)", x.Got, x.Mode)
		}
		count[code]++
		if count[code] == 1 {
			list = append(list, code)
		}
	}
	for i, code := range list {
		list[i] = fmt.Sprintf("%s ×%d", code, count[code])
	}
	return strings.Join(list, ", ")
}
