//go:build failpoint

package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestKilledADD kills the plugin at the steps of an ADD. The DEL that a runtime calls then, or a GC,
// leaves nothing.
func TestKilledADD(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	lan := w.list("lan", plugin("web"))
	for _, step := range []string{"intent", "lease", "link", "address", "commit"} {
		for verb, end := range map[string]func(sandbox) error{
			"DEL": func(s sandbox) error { return w.del(lan, s.conf("c1")) },
			"GC":  func(sandbox) error { return w.gc(lan) },
		} {
			s := newSandbox(t)
			t.Setenv("LANYARD_FAILPOINT", step)
			if _, err := w.add(lan, s.conf("c1")); err == nil {
				t.Errorf("%s: the ADD was not killed", step)
			}
			t.Setenv("LANYARD_FAILPOINT", "")
			if err := end(s); err != nil {
				t.Errorf("%s after a kill at %q: %v", verb, step, err)
			}
			w.wantNothing("web")
		}
	}
}
