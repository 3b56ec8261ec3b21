package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestTrace checks that a traced attach prints the time of each step and stores it in the
// record, and that other attaches do neither.
func TestTrace(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	o := w.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"createRuntime"}, "LANYARD_TRACE=1")
	if o.Status != 0 {
		t.Fatalf("traced attach: %+v", o)
	}
	var kept []string
	for _, s := range w.Record().Timing {
		if s.Took <= 0 {
			t.Errorf("step %q took %s", s.Name, s.Took)
		}
		kept = append(kept, s.Name)
	}
	const want = "resolve intent lease record parent watch expect ask link probe address announce judge"
	if got := strings.Join(kept, " "); got != want {
		t.Errorf("steps are %q, want %q", got, want)
	}
	for _, step := range append(kept, "start", "open", "namespace", "definition", "commit", "sum") {
		if strings.Count(o.Stderr, "lanyard-trace: "+step+" ") != 1 {
			t.Errorf("%q is not once in %q", step, o.Stderr)
		}
	}
	other := testenv.NewContainer(t)
	w.MustAttach("c2", other, "network=web") // which checks that stderr is empty
	for _, a := range w.Records() {
		if a.Containers[0].ID == "c2" && a.Timing != nil {
			t.Errorf("an attach without a trace has %v", a.Timing)
		}
	}
}
