package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// answer returns the service's answer on a connection, "" for success.
func answer(tb testing.TB, c *net.UnixConn, message []byte) string {
	tb.Helper()
	_, err := c.Write(message)
	must(tb, err)
	return reply(tb, c)
}

func reply(tb testing.TB, c *net.UnixConn) string {
	tb.Helper()
	must(tb, c.SetDeadline(time.Now().Add(20*time.Second)))
	packet, err := readReply(c)
	must(tb, err)
	return errorIn(tb, packet)
}

// TestServiceIdentifiesConnector checks that the caller is the user who connected, even if
// another process uses the socket, or the process has changed its uid.
func TestServiceIdentifiesConnector(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, bob)
	message := fmt.Appendf(nil, `{"version":2,"verb":"attach","container":"c1","pid":%d,"wants":[{"network":"web"}]}`,
		c.Pid)
	// Mallory connects, and root sends the request, as a set-user-ID program could.
	if got := answer(t, b.mustDialBy(mallory), message); !strings.HasPrefix(got, "refused") {
		t.Errorf("root with mallory's socket is told %q", got)
	}
	if got := answer(t, b.mustDialBy(alice), message); !strings.HasPrefix(got, "refused") {
		t.Errorf("root with alice's socket is told %q", got)
	}
	if got := answer(t, b.mustDialBy(bob), message); got != "" {
		t.Errorf("root with bob's socket is told %q", got)
	}
}

// TestServiceSetUID checks that a request of a set-user-ID program on a socket that its
// caller connected counts as its caller's.
func TestServiceSetUID(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, bob)
	dir, err := os.MkdirTemp("/var/tmp", "lanyard-test") // not mounted nosuid
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	text, err := os.ReadFile("/bin/cat")
	must(t, err)
	cat, message := filepath.Join(dir, "cat"), filepath.Join(dir, "message")
	must(t, os.WriteFile(cat, text, 0o755))
	must(t, os.Chmod(cat, 0o755|os.ModeSetuid))
	// Only root can read this file, so the program is root when it sends it.
	text = fmt.Appendf(nil, `{"version":2,"verb":"attach","container":"c1","pid":%d,"wants":[{"network":"web"}]}`,
		c.Pid)
	must(t, os.WriteFile(message, text, 0o600))
	for uid, want := range map[int]string{mallory: "refused", alice: "refused", bob: ""} {
		conn := b.mustDialBy(uid)
		socket, err := conn.File()
		must(t, err)
		cmd := by(uid, exec.Command(cat, message))
		cmd.Stdout = socket
		if err := b.Host.Run(cmd); err != nil {
			t.Fatalf("the program did not run as root: %v", err)
		}
		socket.Close()
		if got := reply(t, conn); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("root with the socket of uid %d is told %q", uid, got)
		}
	}
}

// TestServiceSubordinate checks that a subordinate uid of a user, in its own user
// namespace, cannot attach, and that a user namespace that it creates still belongs to
// the user.
func TestServiceSubordinate(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, alice)
	b.secret("a subordinate uid", b.attachBy(100_032, "x", c.Pid, "network=web"), "belongs to uid 1000 ")
	sub := testenv.NewRootless(t, 100_032)
	b.secret("a container of a subordinate uid", b.attachBy(alice, "x", sub.Pid, "network=web"), "belongs to uid 100032")
}

// TestServiceThreads checks that a thread in another user's namespace does not make that
// the namespace of the process.
func TestServiceThreads(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, bob)
	// A thread of this process, which runs as root, is in bob's namespace.
	must(t, c.Do(func() error {
		b.secret("a thread that is inside", b.attachBy(bob, "x", os.Getpid(), "network=web"), "refused")
		b.secret("the thread itself", b.attachBy(bob, "x", unix.Gettid(), "network=web"), "refused")
		return nil
	}))
}

// TestServiceRecycledPid checks that a pid that is reused while the service checks it never
// gives access to the other process's namespace, at any timing.
func TestServiceRecycledPid(t *testing.T) {
	recyclePids(t, func(pid int) { must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0)) })
}

// recyclePids makes the kernel reuse alice's pids for bob while the service checks them.
// next makes pid the next one that the kernel gives out.
func recyclePids(t *testing.T, next func(pid int)) {
	t.Helper()
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	recycled := 0
	for i := range 12 {
		c := testenv.NewRootless(t, alice)
		id := fmt.Sprintf("c%d", i)
		cmd, _ := b.Command(hooklab.State(id, c.Pid, "network=web"), []string{"createRuntime"})
		must(t, b.Host.Start(by(alice, cmd)))
		// Each round is a little later.
		<-time.After(time.Duration(i) * 750 * time.Microsecond)
		must(t, c.Kill())
		c.Reap()
		next(c.Pid)
		other := testenv.NewRootless(t, bob)
		_ = cmd.Wait()
		if other.Pid == c.Pid {
			recycled++
			b.secret("a recycled pid", b.attachBy(alice, "x", c.Pid, "network=web"), "belongs to uid 1001 ")
		}
		if links := b.Links(other.Namespace); len(links) != 1 {
			t.Fatalf("bob's namespace has %q", links)
		}
		b.mustDetachBy(alice, id)
		other.End(t)
	}
	if recycled < 3 {
		t.Errorf("a pid was recycled %d times: the test tests little", recycled)
	}
	b.WantNothing("web", before)
}

// TestServiceExitRace checks that a process that ends while the service checks it leaves
// nothing behind, at any timing.
func TestServiceExitRace(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	for i := range 10 {
		c := testenv.NewRootless(t, alice)
		done := make(chan hooklab.Outcome, 1)
		cmd, stderr := b.Command(hooklab.State(fmt.Sprintf("c%d", i), c.Pid, "network=web"), []string{"createRuntime"})
		must(t, b.Host.Start(by(alice, cmd)))
		go func() {
			_ = cmd.Wait()
			done <- hooklab.Ended(cmd, stderr)
		}()
		must(t, c.Kill())
		<-done
		b.mustDetachBy(alice, fmt.Sprintf("c%d", i))
		c.End(t)
	}
	b.WantNothing("web", before)
	b.wantNoGuards(t)
}
