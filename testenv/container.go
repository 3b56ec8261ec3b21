package testenv

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A Container is an empty network namespace with one process that waits, as a runtime's init does
// while the hooks run.
type Container struct {
	*Namespace
	Pid int

	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// NewContainer starts a process in a new network namespace with lo up. The
// process ends with the test.
func NewContainer(tb testing.TB) *Container {
	tb.Helper()
	c := newProcess(tb)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := c.cmd.Start(); err != nil {
		tb.Fatalf("start a container's process (needs root): %v", err)
	}
	c.hold(tb)
	tb.Cleanup(c.stop)
	return c
}

func (c *Container) hold(tb testing.TB) {
	tb.Helper()
	c.Pid = c.cmd.Process.Pid
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Pid))
	if err != nil {
		c.stop()
		tb.Fatal(err)
	}
	c.Namespace = holdNamespace(tb, fmt.Sprintf("container %d", c.Pid), file)
}

// JoinNamespace starts a process in an existing namespace, as the second container of a pod does.
// The namespace does not end with it.
func JoinNamespace(tb testing.TB, n *Namespace) *Container {
	tb.Helper()
	c := newProcess(tb)
	must(tb, n.Start(c.cmd))
	c.Namespace, c.Pid = n, c.cmd.Process.Pid
	tb.Cleanup(c.stop)
	return c
}

// Pin is PinAt without the path.
func (n *Namespace) Pin(tb testing.TB) (unpin func()) {
	tb.Helper()
	_, unpin = n.PinAt(tb)
	return unpin
}

// PinAt binds the namespace to a file until unpin is called or the test ends: the namespace outlives
// its last process, as those of Kubernetes pods do.
func (n *Namespace) PinAt(tb testing.TB) (path string, unpin func()) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "netns")
	must(tb, os.WriteFile(path, nil, 0o600))
	must(tb, unix.Mount(n.Path(), path, "", unix.MS_BIND, ""))
	unpin = sync.OnceFunc(func() { must(tb, unix.Unmount(path, unix.MNT_DETACH)) })
	tb.Cleanup(unpin)
	return path, unpin
}

// newProcess prepares cat, or the command args, which must end in cat. It waits for the end of its
// input, which comes even if this process is killed, so that nothing is left behind in any case.
// The cat is busybox's, which needs no libraries: an emulated machine takes long to read them.
func newProcess(tb testing.TB, args ...string) *Container {
	tb.Helper()
	if len(args) == 0 {
		args = []string{"busybox", "cat"}
	}
	c := &Container{cmd: exec.Command(args[0], args[1:]...)}
	var err error
	c.stdin, err = c.cmd.StdinPipe()
	must(tb, err)
	return c
}

func (c *Container) stop() {
	c.stdin.Close()
	c.cmd.Wait() // it was told to end, or killed: its status means nothing
}

// Kill kills the container's process and leaves a zombie until Reap or the end of the test. The
// test holds the namespace open until End.
func (c *Container) Kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	// Wait for the end without taking the status.
	return unix.Waitid(unix.P_PID, c.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
}

// Reap takes the killed process's status, which frees its pid.
func (c *Container) Reap() {
	c.cmd.Wait() // the error "signal: killed" is expected
}

// End kills the process, reaps it and closes the namespace, which the kernel then takes down with
// everything in it. After End, nothing can run in the namespace.
func (c *Container) End(tb testing.TB) {
	tb.Helper()
	must(tb, c.Kill())
	c.Reap()
	c.release(tb)
}
