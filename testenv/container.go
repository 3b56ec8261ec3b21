package testenv

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A Container is an empty network namespace in which one process waits, as a
// runtime's init does while the hooks run.
type Container struct {
	*Namespace
	Pid int

	cmd   *exec.Cmd
	stdin io.Closer
}

// NewContainer starts a process in a new network namespace with lo up. The
// process ends with the test.
func NewContainer(tb testing.TB) *Container {
	tb.Helper()
	// cat waits for the end of its input, which comes even if this process is
	// killed: nothing is left behind in any case.
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	must(tb, err)
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start a container's process (root is needed): %v", err)
	}
	c := &Container{Pid: cmd.Process.Pid, cmd: cmd, stdin: stdin}
	stop := func() {
		c.stdin.Close()
		cmd.Wait() // it was told to end, or killed: its status says nothing
	}
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Pid))
	if err != nil {
		stop()
		tb.Fatal(err)
	}
	c.Namespace = holdNamespace(tb, fmt.Sprintf("container %d", c.Pid), file)
	tb.Cleanup(stop)
	return c
}

// Kill kills the container's process and leaves a zombie, until Reap or the end
// of the test. The namespace lives on, held by the test, until End.
func (c *Container) Kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	// Wait for the end without taking the status.
	return unix.Waitid(unix.P_PID, c.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
}

// Reap takes the killed process's status: its pid is free from now on.
func (c *Container) Reap() {
	c.cmd.Wait() // "signal: killed" is no news
}

// End kills the process, reaps it and lets go of the namespace, which the
// kernel then takes down with all that is in it. Nothing can be done inside
// afterwards.
func (c *Container) End(tb testing.TB) {
	tb.Helper()
	must(tb, c.Kill())
	c.Reap()
	c.release(tb)
}
