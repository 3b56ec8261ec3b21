//go:build failpoint

package bpf

import (
	"os"

	"golang.org/x/sys/unix"
)

// failpoint kills the process as only a crash does: no deferred call runs. LANYARD_FAILPOINT names
// the step.
func failpoint(step string) {
	if os.Getenv("LANYARD_FAILPOINT") == step {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}
