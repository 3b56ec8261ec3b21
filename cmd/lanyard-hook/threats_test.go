package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every threat of the guide names tests, and there are such tests.
func TestThreatsAreTested(t *testing.T) {
	text, err := os.ReadFile("../../docs/rootless.md")
	must(t, err)
	_, table, _ := strings.Cut(string(text), "## Threats")
	table, _, _ = strings.Cut(table, "## What remains possible")
	named := regexp.MustCompile("`(?:([a-z/]+): )?((?:Test|Fuzz)[A-Za-z]+)`")
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| asset ") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test is named in %s", line)
		}
		for _, m := range tests {
			dir := m[1]
			if dir == "" {
				dir = "cmd/lanyard-hook"
			}
			if !hasTest(t, filepath.Join("../..", dir), m[2]) {
				t.Errorf("%s has no %s", dir, m[2])
			}
		}
	}
	if rows < 15 {
		t.Errorf("the table has %d rows", rows)
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	must(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(t, err)
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
