package journal

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestKinds checks that each message with a MESSAGE_ID is logged somewhere: with other words in one of
// the two places, the event would lose its id without an error. Guide and table have the same ids.
func TestKinds(t *testing.T) {
	logged := source(t)
	guide, err := os.ReadFile("../../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for message, id := range kinds {
		if !regexp.MustCompile(`\.(Info|Warn|Error)\(` + regexp.QuoteMeta(strconv.Quote(message))).MatchString(logged) {
			t.Errorf("no event is logged as %q", message)
		}
		if seen[id] || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
			t.Errorf("%q has the id %q, which another one has, or is none", message, id)
		}
		seen[id] = true
		if !strings.Contains(string(guide), "`"+id+"`") {
			t.Errorf("docs/monitoring.md lacks %s, %q", id, message)
		}
	}
}

// source returns the text of all programs.
func source(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"cmd", "hook", "internal", "ipam"} {
		err := filepath.WalkDir(filepath.Join("../../..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
