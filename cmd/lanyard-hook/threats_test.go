package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatsAreTested checks that every threat of docs/rootless.md names at least one
// test, and that the tests that it names exist.
func TestThreatsAreTested(t *testing.T) {
	text, err := os.ReadFile("../../docs/rootless.md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "## Threats")
	section, _, _ = strings.Cut(section, "\n## ")
	named := regexp.MustCompile("`(?:([a-z/]+): )?((?:Test|Fuzz)\\w+)`")
	threats := strings.Split(section, "\n- **")[1:]
	for _, threat := range threats {
		_, proof, _ := strings.Cut(strings.Join(strings.Fields(threat), " "), "*Test")
		tests := named.FindAllStringSubmatch(proof, -1)
		if len(tests) == 0 {
			t.Errorf("no test is named in %s", threat)
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
	if len(threats) < 27 {
		t.Errorf("the section has %d threats, want 27 or more", len(threats))
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
