//go:build !vm

package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// depsOf returns all packages that a program links.
func depsOf(t *testing.T, program string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", program).Output()
	must(t, err)
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "golang.org/x/sys/unix") {
		t.Fatalf("go list found %q", deps)
	}
	return deps
}

// TestEtcdInTheServiceOnly checks that of all programs only "lanyard", which is the service, links the
// client of etcd: it would double the time that the others take to start.
func TestEtcdInTheServiceOnly(t *testing.T) {
	for program, want := range map[string]bool{
		"lanyard": true, "lanyard-hook": false, "lanyard-attach": false, "lanyard-cni": false, "lanyard-netavark": false,
	} {
		links := slices.ContainsFunc(depsOf(t, "../"+program), func(d string) bool {
			return strings.HasPrefix(d, "go.etcd.io/etcd/client/")
		})
		if links != want {
			t.Errorf("%s links the client of etcd: %t, want %t", program, links, want)
		}
	}
}

// TestImports checks that the hook imports nothing of Lanyard's but the messenger and the messages,
// and no package with a long initialization: every container start loads all of it.
func TestImports(t *testing.T) {
	const lanyard = "github.com/lanyard-net/lanyard/"
	own := []string{lanyard + "cmd/lanyard-hook", lanyard + "internal/messenger", lanyard + "hook/service/wire"}
	for _, d := range depsOf(t, ".") {
		module, _, outside := strings.Cut(d, ".")
		outside = outside && !strings.Contains(module, "/") && !strings.HasPrefix(d, "golang.org/x/sys/")
		heavy := slices.Contains([]string{"fmt", "net", "encoding/json", "regexp", "log/slog"}, d)
		if (outside || heavy) && !slices.Contains(own, d) {
			t.Errorf("lanyard-hook imports %s", d)
		}
	}
}
