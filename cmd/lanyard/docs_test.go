package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every command that docs/parity.md shows from Docker's documentation is run by a
// script, as it stands there.
func TestDockerCommandsAreRun(t *testing.T) {
	run := map[string]bool{}
	for line := range strings.Lines(readAll(t, "testdata/script-docker/*.txtar")) {
		run[strings.TrimSpace(line)] = true
	}
	shown := 0
	for line := range strings.Lines(readAll(t, "../../docs/parity.md")) {
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

// Every row of docs/parity.md names first what shows it with real containers, which
// says where; and all else that it names is there.
func TestRowsAreProven(t *testing.T) {
	hookTests := readAll(t, "../lanyard-hook/*_test.go")
	goTests := hookTests + readAll(t, "../../hook/network/*_test.go")
	row := regexp.MustCompile(`(?m)^\| (.+?) \| .* \| (.+?) \|$`)
	test, script := regexp.MustCompile(`\bTest\w+`), regexp.MustCompile(`\bscript[-\w]*/[-\w]+`)
	rows := row.FindAllStringSubmatch(readAll(t, "../../docs/parity.md"), -1)
	shown := 0
	for _, r := range rows {
		behaviour, proof := r[1], r[2]
		if behaviour == "behaviour" {
			continue
		}
		shown++
		var real string
		switch first, _, _ := strings.Cut(proof, ","); {
		case strings.HasPrefix(first, "script-docker/"), strings.HasPrefix(first, "script-many/"):
			real = readAll(t, "testdata/"+first+".txtar")
		case first == "TestRuntimes":
			real = hookTests
		default:
			t.Errorf("%q: %q has no real containers", behaviour, first)
		}
		if mark := regexp.MustCompile(`(?m)^(#|//) Row: ` + regexp.QuoteMeta(behaviour) + `$`); !mark.MatchString(real) {
			t.Errorf("%q: %q does not say where it is shown", behaviour, proof)
		}
		for _, name := range test.FindAllString(proof, -1) {
			if !strings.Contains(goTests, "func "+name+"(t *testing.T)") {
				t.Errorf("%q: there is no %s", behaviour, name)
			}
		}
		for _, name := range script.FindAllString(proof, -1) {
			readAll(t, "testdata/"+name+".txtar")
		}
	}
	if shown < 40 {
		t.Errorf("%d rows are shown", shown)
	}
}

// readAll reads the files of a pattern, which there must be.
func readAll(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file %q: %v", pattern, err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
