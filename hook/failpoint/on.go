//go:build failpoint

// Package failpoint marks the steps after which a crash leaves most to clean up. Tests that are
// built with the tag "failpoint" kill the process there. In all other builds, At does nothing.
package failpoint

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// At kills the process if LANYARD_FAILPOINT names the step. As in a crash, no deferred call runs. If
// LANYARD_FAILPOINT_SOCKET names a socket, At connects to it instead, and returns when the test that
// listens there closes the connection: other goroutines continue. It returns at once if no test listens.
func At(step string) {
	if os.Getenv("LANYARD_FAILPOINT") != step {
		return
	}
	if path := os.Getenv("LANYARD_FAILPOINT_SOCKET"); path != "" {
		if c, err := net.Dial("unix", path); err == nil {
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		return
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL) // no caller remains for an error
	select {}
}
