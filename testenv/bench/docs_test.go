package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUpdateTable(t *testing.T) {
	const head = "| ratio | target | measured | | why |"
	const above = "# Notes\n\n" + head + "\n|---|--:|--:|---|---|\n"
	const below = "| not measured | ≤ 1.00 | | | |\n\n| attach: a / b | other |\n"
	const before = above + "| attach: a / b | ≤ 0.85 | 1.00 | met | it waits |\n" + below
	const want = above + "| attach: a / b | ≤ 0.80 | 0.90 (0.70 – 1.10) | **missed** | it waits |\n" + below
	file := filepath.Join(t.TempDir(), "notes.md")
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &results{Ratios: []Ratio{{Name: "attach: a / b", Value: 0.9, Low: 0.7, High: 1.1, Target: 0.8}}}
	if err := updateTable(file, head, r.targetRow); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	if err := updateTable(file, "| no such table |", r.targetRow); err == nil {
		t.Error("no error for a file without the table")
	}
}

// TestDocs updates the tables of the repository's own documents, in copies.
func TestDocs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"README.md", "docs/notes/performance.md"} {
		b, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &results{}
	r.add("attach", ours, []sample{{wall: 123456789}})
	if err := r.updateDocs(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "| attach | 123.5 |") {
		t.Errorf("README.md has no new figure of the attach:\n%s", b)
	}
}
