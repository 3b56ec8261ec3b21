//go:build vm

package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestServiceTinyPidMax does the same with so few pids that the kernel soon reuses them. A
// user can cause that by using all other pids.
func TestServiceTinyPidMax(t *testing.T) {
	testenv.OnOneKernel(t, "6.1")
	mustBeInVM(t)
	const file = "/proc/sys/kernel/pid_max"
	was, err := os.ReadFile(file)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(file, was, 0)) })
	// The kernel starts again at 300 (kernel/pid.c, RESERVED_PIDS); each hook and
	// container uses a dozen pids.
	must(t, os.WriteFile(file, []byte("420"), 0))
	recyclePids(t, func(pid int) {
		for range 1000 { // the previous pid may be in use
			text, err := os.ReadFile("/proc/sys/kernel/ns_last_pid")
			must(t, err)
			if last, _ := strconv.Atoi(strings.TrimSpace(string(text))); last == pid-1 {
				return
			}
			must(t, testenv.OnThread(func() error { return nil })) // takes a pid
		}
	})
}
