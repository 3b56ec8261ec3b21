package main

import (
	"bytes"
	"io"
	"strings"
)

// A report reads what `go test -v` prints and lets through what someone must
// read: tests that failed or were skipped, with all that they said, and
// whatever is no test's. A skip must be seen, or it hides a gap.
type report struct {
	out io.Writer
	all bool // let everything through

	passed, failed, skipped int

	partial []byte
	held    bytes.Buffer // since the last moment that no test was running
	running map[string]bool
	loud    bool // the held lines are worth reading
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

// line takes one line. Only top-level tests count: those of subtests are
// indented.
func (r *report) line(line string) error {
	if r.all {
		if _, err := io.WriteString(r.out, line); err != nil {
			return err
		}
	} else {
		r.held.WriteString(line)
	}
	f := strings.Fields(line)
	if strings.HasPrefix(strings.TrimSpace(line), "--- SKIP: ") {
		r.loud = true // a subtest's skip hides as much
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
		// No test's, or a subtest's after its parent's. The verdict of the
		// whole is said elsewhere.
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

// flush forgets what is held, and prints it first if it is worth reading.
func (r *report) flush(loud bool) error {
	r.loud = false
	if !loud {
		r.held.Reset()
		return nil
	}
	_, err := r.held.WriteTo(r.out)
	return err
}

// close ends the report. What was still running when the program ended is
// worth reading if it ended badly.
func (r *report) close(bad bool) error {
	r.held.Write(r.partial)
	r.partial = nil
	return r.flush(bad || r.loud)
}
