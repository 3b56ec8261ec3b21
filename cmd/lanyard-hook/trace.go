package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
)

// newTrace returns a trace if LANYARD_TRACE=1, else nil.
func newTrace() *hook.Trace {
	if os.Getenv("LANYARD_TRACE") != "1" {
		return nil
	}
	t := hook.NewTrace()
	// The start time of a process has a resolution of 10 ms (proc_pid_stat(5)). The CPU time
	// used so far is more precise.
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		t.Steps = append(t.Steps, hook.Step{Name: "start", Took: time.Duration(u.Utime.Nano() + u.Stime.Nano())})
	}
	return t
}

// printTrace writes one line per step, and one for the sum.
func printTrace(w io.Writer, t *hook.Trace) {
	var sum time.Duration
	for _, s := range t.Steps {
		fmt.Fprintf(w, "lanyard-trace: %-10s %8.3f ms\n", s.Name, s.Took.Seconds()*1e3)
		sum += s.Took
	}
	fmt.Fprintf(w, "lanyard-trace: %-10s %8.3f ms\n", "sum", sum.Seconds()*1e3)
}
