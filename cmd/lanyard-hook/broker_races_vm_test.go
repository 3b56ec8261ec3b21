//go:build vm

package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// The same where there are so few pids that they come round by themselves: a
// user can have that by using up all others.
func TestBrokerTinyPidMax(t *testing.T) {
	testenv.OnOneKernel(t, "6.1")
	mustBeInVM(t)
	const file = "/proc/sys/kernel/pid_max"
	was, err := os.ReadFile(file)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(file, was, 0)) })
	// From 300 on they come round (kernel/pid.c, RESERVED_PIDS); each hook and
	// container takes a dozen meanwhile.
	must(t, os.WriteFile(file, []byte("420"), 0))
	recyclePids(t, func(pid int) {
		for range 1000 { // the one before may be somebody's
			text, err := os.ReadFile("/proc/sys/kernel/ns_last_pid")
			must(t, err)
			if last, _ := strconv.Atoi(strings.TrimSpace(string(text))); last == pid-1 {
				return
			}
			must(t, testenv.OnThread(func() error { return nil })) // takes a pid
		}
	})
}
