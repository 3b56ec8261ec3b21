//go:build !vm

// On an emulated machine two floods alone are more than its processors can do.

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/broker"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// Others' floods do not keep a user out: each start amid them is done within the
// hook's own time.
func TestBrokerAmidFloods(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	mustRaiseFiles(t)
	pid := testenv.NewRootless(t, mallory).Pid
	calm := mustFlood(t, b.socket(), "",
		fmt.Sprintf(`{"version":1,"verb":"attach","container":"m","pid":%d,"wants":[{"network":"web"}]}`, pid))
	for i := range 5 {
		b.works(fmt.Sprintf("amid%d", i))
	}
	calm()
	b.works("after")
	if lines := b.why(bob); len(lines) > 0 {
		t.Errorf("bob is told of %q", lines)
	}
}

// What a start costs others amid all floods at once, as a ratio of what it costs
// without: both in turns, so that a busy machine weighs on both. The floods run at
// the lowest priority: what their own processes take of the processors is not the
// broker's to share out, and what they have the broker do is what is measured.
func TestBrokerLatencyAmidFloods(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) { d.Verify = network.VerifyOff })
	b.stop()
	b.start(asInstalled + "=1")
	mustRaiseFiles(t)
	pid := testenv.NewRootless(t, mallory).Pid
	floods := []string{
		"", // connections
		"\x00\xff",
		`{"version":1,"verb":"why"}`,
		`{"version":1,"verb":"detach","container":"m"}`,
		fmt.Sprintf(`{"version":1,"verb":"attach","container":"m","pid":%d,"wants":[{"network":"web"}]}`, pid),
		strings.Repeat("[", 32<<10),
	}
	const rounds, each = 6, 3
	var calm, amid []time.Duration
	measure := func(into *[]time.Duration, id string) {
		for i := range each {
			c := testenv.NewRootless(t, bob)
			start := time.Now()
			b.mustAttachBy(bob, fmt.Sprintf("%s%d", id, i), c.Pid, "network=web")
			*into = append(*into, time.Since(start))
			must(t, c.Kill())
			b.mustDetachBy(bob, fmt.Sprintf("%s%d", id, i))
			c.End(t)
		}
	}
	for i := range rounds {
		measure(&calm, fmt.Sprintf("calm%d-", i))
		end := mustFlood(t, b.socket(), floods...)
		measure(&amid, fmt.Sprintf("amid%d-", i))
		end()
	}
	ratio := median(amid).Seconds() / median(calm).Seconds()
	t.Logf("a start takes %v without floods, %v amid them: %.2f times as long", median(calm), median(amid), ratio)
	// The aim is 2, and 1.3 to 2.2 was seen on two processors; the margin is for what
	// else the machine does. It was 30 before floods were turned away at the door.
	if ratio > 3 {
		t.Errorf("floods make a start of another user's take %.2f times as long", ratio)
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// asFlooder tells the test binary to flood the socket named, with what comes on
// stdin. It is a process of its own: in the test's, it would take from who measures.
const asFlooder = "LANYARD_TEST_AS_FLOODER"

func init() {
	socket := os.Getenv(asFlooder)
	if socket == "" {
		return
	}
	message, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // this thread, which floods
	}
	if err == nil {
		err = flood(socket, message)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// flood asks again and again, with or without a message. It says on stdout when it
// has begun.
func flood(socket string, message []byte) error {
	for asked := 0; ; {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		// EAGAIN: the line is full, as a flood would have it.
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
		if err == nil && len(message) > 0 {
			_, _ = unix.Write(fd, message)
		}
		unix.Close(fd)
		switch {
		case err == nil:
			if asked++; asked == 100 {
				fmt.Println("flooding")
			}
		case err != unix.EAGAIN:
			return err
		}
	}
}

// mustFlood floods with each message at once, as mallory, until calm is called or
// the test ends, however it ends: what goes on would take the processors from all
// others.
func mustFlood(tb testing.TB, socket string, messages ...string) (calm func()) {
	tb.Helper()
	var all []*exec.Cmd
	calm = sync.OnceFunc(func() {
		for _, cmd := range all {
			must(tb, cmd.Process.Kill())
			if cmd.Wait(); cmd.ProcessState.Exited() {
				tb.Errorf("a flood ended by itself: %v", cmd.ProcessState)
			}
		}
	})
	tb.Cleanup(calm)
	for _, m := range messages {
		cmd := by(mallory, exec.Command("/proc/self/exe")) // by its path, mallory could not get at it
		cmd.Env = append(os.Environ(), asFlooder+"="+socket)
		cmd.Stdin, cmd.Stderr = strings.NewReader(m), os.Stderr
		begun, err := cmd.StdoutPipe()
		must(tb, err)
		must(tb, cmd.Start())
		all = append(all, cmd)
		if _, err := io.ReadFull(begun, make([]byte, 1)); err != nil {
			tb.Fatalf("a flood did not begin: %v", err)
		}
	}
	return calm
}

// Who starts more containers at once than the broker takes requests gets all of
// them: the hooks ask again.
func TestBrokerBurst(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	const asked = 160 // more than the budget of one user, and faster than it grows
	results := make(chan error, asked)
	for range asked {
		go func() {
			results <- asUID(alice, func() error {
				_, err := broker.Client{Socket: b.socket()}.Why(context.Background())
				return err
			})
		}()
	}
	for range asked {
		if err := <-results; err != nil {
			t.Errorf("one was turned away: %v", err)
		}
	}
}
