//go:build !vm

package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports checks that the hook imports nothing of Lanyard's but package messenger and the messages,
// and no package with a long initialization: every container start loads all of it.
func TestImports(t *testing.T) {
	const module = "github.com/lanyard-net/lanyard"
	cmd := exec.Command("go", "list", "-deps", ".")
	out, err := cmd.Output()
	must(t, err)
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "golang.org/x/sys/unix") {
		t.Fatalf("go list found %q", deps)
	}
	own := []string{module + "/cmd/lanyard-hook", module + "/internal/messenger", module + "/hook/service/wire"}
	for _, d := range deps {
		host, _, outside := strings.Cut(d, ".")
		outside = outside && !strings.Contains(host, "/") && !strings.HasPrefix(d, "golang.org/x/sys/")
		heavy := slices.Contains([]string{"fmt", "net", "encoding/json", "regexp", "log/slog"}, d)
		if (outside || heavy) && !slices.Contains(own, d) {
			t.Errorf("lanyard-hook imports %s", d)
		}
	}
}
