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
	Again  int         `json:"again,omitzero"` // how often the machine stood still in it
}

type report struct{ Rows []row }

// run attaches in a cell, and fails the test where it comes to anything else than it
// must. The report says how often it took several attempts.
func (c cell) run(t *testing.T, b *bench) row {
	t.Helper()
	w := c.want(b)
	o, again, err := b.steadily(c, func(o outcome) bool { return w.wrong(o) == "" })
	got := row{
		Kernel: os.Getenv("LANYARD_VM"), Fault: c.fault.name, Place: c.place.name, Family: c.family.name,
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

// markdown is a table of faults against places.
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
		fmt.Fprintf(&s, "The machine stood still %d times, and the cell was tried again.\n\n", again)
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

// field counts what the cells came to, the wrong ones in bold.
func field(rows []row) string {
	var list []string
	count := map[string]int{}
	for _, x := range rows {
		what := string(x.Got)
		if x.Wrong != "" {
			what = fmt.Sprintf("**%s** (%s)", x.Got, x.Mode)
		}
		if count[what]++; count[what] == 1 {
			list = append(list, what)
		}
	}
	for i, what := range list {
		list[i] = fmt.Sprintf("%s ×%d", what, count[what])
	}
	return strings.Join(list, ", ")
}
