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

// A Namespace is a network namespace that a descriptor holds open; it has no
// name in the file system.
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
			return fmt.Errorf("make network namespace %q (root is needed): %w", name, err)
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	must(tb, err)
	return holdNamespace(tb, name, file)
}

// holdNamespace takes over an open namespace: sets lo up, and closes and checks
// it at the end of the test.
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

// Release lets go of the namespace before the test's end. Nothing can be done inside
// afterwards; it lives on while a process or a pin holds it.
func (n *Namespace) Release(tb testing.TB) { n.release(tb) }

// release lets go of the namespace and reports whatever else holds it.
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

// OnThread runs a function on a thread of its own, which dies afterwards: it
// may change the thread's namespaces and need not put them back.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The runtime cannot end the process's first thread, which would
			// stay in the namespace for good. Sit on it while another works.
			defer runtime.UnlockOSThread()
			done <- OnThread(f)
			return
		}
		// Never unlocked: the thread ends with the goroutine, also where that
		// ends early, in a test's FailNow.
		err := errors.New("it did not return; FailNow belongs on the test's own goroutine")
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// Do runs a function inside the namespace. The function must not call FailNow,
// and goroutines that it starts are outside.
func (n *Namespace) Do(f func() error) error {
	return OnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %q: %w", n.Name, err)
		}
		return f()
	})
}

// Path names the namespace for as long as the test runs, for whoever opens it
// from this or another process.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Netlink is a route netlink handle inside the namespace.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

// execTimeout bounds a program that a test runs.
const execTimeout = 60 * time.Second

// Exec runs a program inside the namespace and returns what it wrote to stdout
// and stderr together. The error, if any, quotes that too.
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

// Run runs a command, made by the caller, inside the namespace.
func (n *Namespace) Run(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Start starts a command inside the namespace. To wait for it is the caller's.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Sysctl writes a setting below /proc/sys as the namespace has it.
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
