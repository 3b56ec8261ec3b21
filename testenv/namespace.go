package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Namespace is a network namespace that is held open by a descriptor and has no name in the file
// system.
type Namespace struct {
	Name string // for messages

	file *os.File // nil once released
	nl   *netlink.Handle
}

// NewNamespace makes a network namespace with lo up. It ends with the test.
func NewNamespace(tb testing.TB, name string) *Namespace {
	tb.Helper()
	var file *os.File
	err := OnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace %q (needs root): %w", name, err)
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	must(tb, err)
	return holdNamespace(tb, name, file)
}

// holdNamespace returns an open namespace as a Namespace, with lo up. At the end of the test it
// closes the namespace and checks for leaks.
func holdNamespace(tb testing.TB, name string, file *os.File) *Namespace {
	tb.Helper()
	nl, err := netlink.NewHandleAt(netns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		file.Close()
		tb.Fatalf("open netlink in namespace %q: %v", name, err)
	}
	n := &Namespace{Name: name, file: file, nl: nl}
	tb.Cleanup(func() { n.release(tb) })
	must(tb, nl.LinkSetUp(n.link(tb, "lo")))
	return n
}

// Release closes the namespace before the end of the test. Nothing can run in it afterwards. It
// exists for as long as a process or a pin holds it.
func (n *Namespace) Release(tb testing.TB) { n.release(tb) }

// release closes the namespace, and fails the test if anything else keeps it alive.
func (n *Namespace) release(tb testing.TB) {
	tb.Helper()
	if n.file == nil {
		return
	}
	n.nl.Close()
	n.checkLeaks(tb)
	n.file.Close()
	n.file = nil
}

// OnThread runs a function on a thread of its own, which ends afterwards: the function may change
// the thread's namespaces without restoring them. OnThread returns the function's error.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The runtime cannot end the process's first thread, which would stay in the namespace.
			// Keep this goroutine on it while another thread runs f.
			defer runtime.UnlockOSThread()
			done <- OnThread(f)
			return
		}
		// The thread is never unlocked, so it ends with the goroutine, also if a test's FailNow
		// ends that early.
		err := errors.New("the function did not return: call FailNow only on the test's own goroutine")
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// Do runs a function inside the namespace. The function must not call FailNow, and goroutines that
// it starts run outside of the namespace.
func (n *Namespace) Do(f func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %q: %w", n.Name, err)
		}
		return f()
	})
}

// Path returns a path to the namespace that this and other processes can open until the test ends.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Netlink returns a route netlink handle inside the namespace.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

// execTimeout limits the run time of a program.
const execTimeout = 60 * time.Second

// Exec runs a program inside the namespace and returns its stdout and stderr together. An error
// quotes the output, too.
func (n *Namespace) Exec(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Run(cmd)
	if err != nil {
		err = fmt.Errorf("run %q in namespace %q: %w: %s", cmd.Args, n.Name, err, strings.TrimSpace(out.String()))
	}
	return out.String(), err
}

// Run runs a command inside the namespace and waits for its end.
func (n *Namespace) Run(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Start starts a command inside the namespace. The caller waits for its end.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Sysctl writes a setting below /proc/sys, inside the namespace.
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
	})
}

func (n *Namespace) link(tb testing.TB, name string) netlink.Link {
	tb.Helper()
	l, err := n.nl.LinkByName(name)
	if err != nil {
		tb.Fatalf("find link %q in namespace %q: %v", name, n.Name, err)
	}
	return l
}
