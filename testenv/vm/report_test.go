package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	tests := map[string]struct {
		in, want                string
		bad                     bool
		passed, failed, skipped int
		slow                    []string
	}{
		"passing tests are not shown": {
			in: "=== RUN   TestA\n    a_test.go:1: chat\n--- PASS: TestA (0.00s)\n=== RUN   TestB\n" +
				"--- PASS: TestB (0.00s)\nPASS\n",
			passed: 2,
		},
		"a failure is shown with its output": {
			in: "=== RUN   TestA\n--- PASS: TestA (0.00s)\n=== RUN   TestB\n    b_test.go:1: wrong\n" +
				"--- FAIL: TestB (0.00s)\nFAIL\n",
			want:   "=== RUN   TestB\n    b_test.go:1: wrong\n--- FAIL: TestB (0.00s)\n",
			bad:    true,
			passed: 1, failed: 1,
		},
		"a skip is shown with its output": {
			in:      "=== RUN   TestA\n    a_test.go:1: no fuse\n--- SKIP: TestA (0.00s)\nPASS\n",
			want:    "=== RUN   TestA\n    a_test.go:1: no fuse\n--- SKIP: TestA (0.00s)\n",
			skipped: 1,
		},
		"a subtest's skip after its parent's end": {
			in: "=== RUN   TestA\n=== RUN   TestA/x\n=== PAUSE TestA/x\n=== CONT  TestA/x\n--- PASS: TestA (0.00s)\n" +
				"    --- PASS: TestA/y (0.00s)\n    --- SKIP: TestA/x (0.00s)\nPASS\n",
			want:   "    --- SKIP: TestA/x (0.00s)\n",
			passed: 1,
		},
		"parallel tests are held until all have ended": {
			in: "=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n=== PAUSE TestB\n=== CONT  TestB\n=== CONT  TestA\n" +
				"--- PASS: TestA (0.00s)\n    b_test.go:1: wrong\n--- FAIL: TestB (0.00s)\n",
			want: "=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n=== PAUSE TestB\n=== CONT  TestB\n=== CONT  TestA\n" +
				"--- PASS: TestA (0.00s)\n    b_test.go:1: wrong\n--- FAIL: TestB (0.00s)\n",
			bad:    true,
			passed: 1, failed: 1,
		},
		"slow tests and subtests": {
			in: "=== RUN   TestA\n=== RUN   TestA/x\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/x (30.00s)\n" +
				"=== RUN   TestB\n--- PASS: TestB (29.99s)\n",
			passed: 2,
			slow:   []string{"TestA/x (30.00s)"},
		},
		"a crash shows what was running": {
			in:   "=== RUN   TestA\npanic: boom\n\ngoroutine 1 [running]:",
			want: "=== RUN   TestA\npanic: boom\n\ngoroutine 1 [running]:",
			bad:  true,
		},
		"output of no test": {
			in:   "cleanup: 1 link leaked\n",
			want: "cleanup: 1 link leaked\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := &report{out: &out}
			for _, b := range []byte(tt.in) { // wherever the pipe splits the output
				if _, err := r.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.close(tt.bad); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("shown (-want +got):\n%s", diff)
			}
			got := [3]int{r.passed, r.failed, r.skipped}
			if want := [3]int{tt.passed, tt.failed, tt.skipped}; got != want {
				t.Errorf("passed, failed, skipped = %v, want %v", got, want)
			}
			if diff := cmp.Diff(tt.slow, r.slow); diff != "" {
				t.Errorf("slow (-want +got):\n%s", diff)
			}
		})
	}
}
