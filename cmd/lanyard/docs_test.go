package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every command that docs/parity.md shows from Docker's documentation is run by a
// script, as it stands there.
func TestDockerCommandsAreRun(t *testing.T) {
	doc, err := os.ReadFile("../../docs/parity.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("testdata/script-docker/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]bool{}
	for _, s := range scripts {
		text, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			run[strings.TrimSpace(line)] = true
		}
	}
	shown := 0
	for line := range strings.Lines(string(doc)) {
		// The shell takes the quotes away; a script has none.
		line = strings.ReplaceAll(strings.TrimSpace(line), `"`, "")
		if !strings.HasPrefix(line, "lanyard network create ") {
			continue
		}
		if shown++; !run[line] {
			t.Errorf("no script runs %q", line)
		}
	}
	if shown < 20 {
		t.Errorf("%d commands are shown", shown)
	}
}
