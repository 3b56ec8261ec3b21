//go:build !vm

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports checks the hook's import graph: every container start loads all of it.
func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	out, err := cmd.Output()
	must(t, err)
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("go list found %d packages", len(deps))
	}
	for _, d := range deps {
		for _, heavy := range []string{"net/http", "regexp", "text/template", "html/template", "github.com/urfave/cli",
			"google.golang.org/grpc", "go.etcd.io/etcd", "github.com/lanyard-net/lanyard/testenv"} {
			if d == heavy || strings.HasPrefix(d, heavy+"/") {
				t.Errorf("lanyard-hook imports %s", d)
			}
		}
	}
}
