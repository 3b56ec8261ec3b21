package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// mustRun runs a program some times over a frame, and says how long one took, in
// nanoseconds.
func mustRun(tb testing.TB, p *ebpf.Program, frame []byte, times int) int64 {
	tb.Helper()
	_, d, err := p.Benchmark(frame, times, nil)
	must(tb, err)
	return d.Nanoseconds()
}
