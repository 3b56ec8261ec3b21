package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// A traced attach says on stderr what each step took, and keeps it in the
// record; any other does neither.
func TestTrace(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	o := w.run(state("c1", c.Pid, "network=web"), []string{"createRuntime"}, "LANYARD_TRACE=1")
	if o.status != 0 {
		t.Fatalf("traced attach: %+v", o)
	}
	var kept []string
	for _, s := range w.record().Timing {
		if s.Took <= 0 {
			t.Errorf("step %q took %s", s.Name, s.Took)
		}
		kept = append(kept, s.Name)
	}
	if got, want := strings.Join(kept, " "), "resolve intent lease record parent watch expect ask link probe address announce judge"; got != want {
		t.Errorf("steps are %q, want %q", got, want)
	}
	for _, step := range append(kept, "start", "open", "namespace", "definition", "commit", "sum") {
		if strings.Count(o.stderr, "lanyard-trace: "+step+" ") != 1 {
			t.Errorf("%q is not once in %q", step, o.stderr)
		}
	}
	other := testenv.NewContainer(t)
	w.mustAttach("c2", other, "network=web") // which wants nothing on stderr
	for _, a := range w.records() {
		if a.Containers[0].ID == "c2" && a.Timing != nil {
			t.Errorf("an attach that nobody traced has %v", a.Timing)
		}
	}
}
