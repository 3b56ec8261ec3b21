package main

import (
	"bytes"
	"io"
	"strings"
	"time"
)

// slowTest is how long a test may take before the report names it: the whole has to fit into CI.
const slowTest = 30 * time.Second

// A report reads the output of `go test -v` and passes on what a person must read: tests that
// failed or were skipped, with all their output, and output that belongs to no test. Skips are
// shown since they may hide a gap.
type report struct {
	out io.Writer
	all bool // pass on everything

	passed, failed, skipped int
	slow                    []string // "TestName (12.34s)", tests and subtests that took slowTest or more

	partial []byte
	held    bytes.Buffer // lines since the last moment at which no test was running
	running map[string]bool
	loud    bool // the held lines are to be shown
}

func (r *report) Write(p []byte) (int, error) {
	r.partial = append(r.partial, p...)
	for {
		i := bytes.IndexByte(r.partial, '\n')
		if i < 0 {
			return len(p), nil
		}
		if err := r.line(string(r.partial[:i+1])); err != nil {
			return 0, err
		}
		r.partial = r.partial[i+1:]
	}
}

// line processes one line. It counts only top-level tests: results of subtests are indented.
func (r *report) line(line string) error {
	if r.all {
		if _, err := io.WriteString(r.out, line); err != nil {
			return err
		}
	} else {
		r.held.WriteString(line)
	}
	f := strings.Fields(line)
	if len(f) == 4 && f[0] == "---" {
		if took, err := time.ParseDuration(strings.Trim(f[3], "()")); err == nil && took >= slowTest {
			r.slow = append(r.slow, f[2]+" "+f[3])
		}
	}
	if strings.HasPrefix(strings.TrimSpace(line), "--- SKIP: ") {
		r.loud = true // the skip of a subtest hides as much
	}
	switch {
	case strings.HasPrefix(line, "=== RUN ") && len(f) == 3 && !strings.Contains(f[2], "/"):
		if r.running == nil {
			r.running = map[string]bool{}
		}
		r.running[f[2]] = true
		return nil
	case strings.HasPrefix(line, "--- PASS: "):
		r.passed++
	case strings.HasPrefix(line, "--- SKIP: "):
		r.skipped++
	case strings.HasPrefix(line, "--- FAIL: "):
		r.failed++
		r.loud = true
	case strings.HasPrefix(line, "==="):
		return nil
	case len(r.running) == 0:
		// The line belongs to no test, or to a subtest of a parent that has ended. The result of
		// the whole package is reported elsewhere.
		quiet := line == "PASS\n" || line == "FAIL\n" || strings.HasPrefix(strings.TrimSpace(line), "--- PASS: ")
		return r.flush(!quiet)
	default:
		return nil
	}
	delete(r.running, f[2])
	if len(r.running) > 0 {
		return nil
	}
	return r.flush(r.loud)
}

// flush clears the held lines, and prints them first if loud is set.
func (r *report) flush(loud bool) error {
	r.loud = false
	if !loud {
		r.held.Reset()
		return nil
	}
	_, err := r.held.WriteTo(r.out)
	return err
}

// close ends the report. If the program failed, it prints the output of tests that were still
// running.
func (r *report) close(bad bool) error {
	r.held.Write(r.partial)
	r.partial = nil
	return r.flush(bad || r.loud)
}
