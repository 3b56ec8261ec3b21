package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDockerCommandsAreRun checks that a script runs every command that docs/parity.md
// quotes from Docker's documentation.
func TestDockerCommandsAreRun(t *testing.T) {
	run := map[string]bool{}
	for line := range strings.Lines(readAll(t, "testdata/script-docker/*.txtar")) {
		run[strings.TrimSpace(line)] = true
	}
	shown := 0
	text := regexp.MustCompile(`\\\n +`).ReplaceAllString(readAll(t, "../../docs/parity.md"), "")
	for line := range strings.Lines(text) {
		// The shell removes the quotes; a script has none.
		line = strings.ReplaceAll(strings.TrimSpace(line), `"`, "")
		if !strings.HasPrefix(line, "lanyard network create ") {
			continue
		}
		shown++
		if !run[line] {
			t.Errorf("no script runs %q", line)
		}
	}
	if shown < 20 {
		t.Errorf("%d commands are shown, want 20 or more", shown)
	}
}

// TestRowsAreProven checks that docs/parity.md names tests for every row of its tables:
// first one with real containers that marks the place with "Row:", then others that
// exist.
func TestRowsAreProven(t *testing.T) {
	hookTests := readAll(t, "../lanyard-hook/*_test.go")
	goTests := hookTests + readAll(t, "../../hook/*/*_test.go")
	tables, list, _ := strings.Cut(readAll(t, "../../docs/parity.md"), "## Tests\n")
	proofs := map[string]string{}
	for _, item := range strings.Split(list, "\n- ")[1:] {
		behaviour, proof, _ := strings.Cut(strings.Join(strings.Fields(item), " "), ": script-")
		if proof != "" {
			proof = "script-" + proof
		} else {
			behaviour, proof, _ = strings.Cut(behaviour, ": Test")
			proof = "Test" + proof
		}
		proofs[behaviour] = proof
	}
	test, script := regexp.MustCompile(`\bTest\w+`), regexp.MustCompile(`\bscript[-\w]*/[-\w]+`)
	rows := regexp.MustCompile(`(?m)^\| (.+?) \| .* \|$`).FindAllStringSubmatch(tables, -1)
	shown := 0
	for _, r := range rows {
		behaviour := r[1]
		if behaviour == "behaviour" {
			continue
		}
		shown++
		proof := proofs[behaviour]
		delete(proofs, behaviour)
		var real string
		switch first, _, _ := strings.Cut(proof, ","); {
		case strings.HasPrefix(first, "script-docker/"), strings.HasPrefix(first, "script-many/"):
			real = readAll(t, "testdata/"+first+".txtar")
		case first == "TestRuntimes", first == "TestDHCPVLAN", first == "TestSLAACVLAN":
			real = hookTests
		default:
			t.Errorf("%q: no test with real containers is named first: %q", behaviour, first)
		}
		if mark := regexp.MustCompile(`(?m)^(#|//) Row: ` + regexp.QuoteMeta(behaviour) + `$`); !mark.MatchString(real) {
			t.Errorf("%q: no \"Row:\" in %q", behaviour, proof)
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
	for behaviour := range proofs {
		t.Errorf("%q has tests and no row", behaviour)
	}
	if shown < 40 {
		t.Errorf("%d rows are shown, want 40 or more", shown)
	}
}

// TestPodmanOfReadme checks that a script runs podman with the options that the README and
// docs/rootless.md show.
func TestPodmanOfReadme(t *testing.T) {
	script := readAll(t, "testdata/script-podman/root.txtar")
	for _, doc := range []string{"../../README.md", "../../docs/rootless.md"} {
		line := regexp.MustCompile(`(?m)^    podman run (?:-d --name web )?(.*) (?:…|docker.io/nginx)$`)
		shown := line.FindStringSubmatch(readAll(t, doc))
		if shown == nil {
			t.Errorf("%s shows no podman", doc)
			continue
		}
		run := regexp.MustCompile(`(?m)^exec inside podman run .*` + regexp.QuoteMeta(shown[1]) + ` --rootfs`)
		if !run.MatchString(script) {
			t.Errorf("%s: no script runs podman with %q", doc, shown[1])
		}
	}
}

// TestFilesOfArchitectureExist checks the files that the contributor guide names: with their
// directory, or those of hook/attach without.
func TestFilesOfArchitectureExist(t *testing.T) {
	text := readAll(t, "../../docs/architecture.md")
	named := regexp.MustCompile("`([\\w/-]+\\.(?:go|c))`").FindAllStringSubmatch(text, -1)
	for _, m := range named {
		dir := "../.."
		if !strings.Contains(m[1], "/") && filepath.Ext(m[1]) == ".go" {
			dir = "../../hook/attach"
		} else if !strings.Contains(m[1], "/") {
			dir = "../../bpf"
		}
		if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
	if len(named) < 40 {
		t.Errorf("%d files are named, want 40 or more", len(named))
	}
	// Functions of the table's rows: "`DIR/FILE`: `FUNCTION`, …", or without DIR for that of the file before.
	functions, dir := 0, ""
	for _, m := range regexp.MustCompile("`([\\w/]+\\.go)`(: `\\w+`(?:, `\\w+`)*)?").FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], "/") {
			dir = filepath.Dir(m[1])
		}
		for _, name := range regexp.MustCompile(`\w+`).FindAllString(m[2], -1) {
			functions++
			source := readAll(t, filepath.Join("../..", dir, filepath.Base(m[1])))
			if !regexp.MustCompile(`func (\([^)]+\) )?` + name + `\(`).MatchString(source) {
				t.Errorf("docs/architecture.md: %s has no function %s", m[1], name)
			}
		}
	}
	if functions < 10 {
		t.Errorf("%d functions are named, want 10 or more", functions)
	}
}

// readAll returns the text of all files that match a pattern, of which at least one must
// exist.
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
