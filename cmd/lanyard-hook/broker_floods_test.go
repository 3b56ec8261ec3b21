//go:build !vm

// On an emulated machine two floods alone are more than its processors can do.

package main

import (
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

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

// mustFlood floods with each message at once, until calm is called or the test
// ends, however it ends: what goes on would take the processors from all others.
func mustFlood(tb testing.TB, socket string, messages ...string) (calm func()) {
	tb.Helper()
	stop, floods := make(chan struct{}), make(chan error, len(messages))
	for _, m := range messages {
		go func() { floods <- flood(socket, m, stop) }()
	}
	calm = sync.OnceFunc(func() {
		close(stop)
		for range messages {
			if err := <-floods; err != nil {
				tb.Errorf("flood: %v", err)
			}
		}
	})
	tb.Cleanup(calm)
	return calm
}

// flood asks again and again as mallory, with or without a message, until it is
// to stop.
func flood(socket, message string, stop chan struct{}) error {
	return asUID(mallory, func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			// EAGAIN: the line is full, as a flood would have it.
			if unix.Connect(fd, &unix.SockaddrUnix{Name: socket}) == nil && message != "" {
				_, _ = unix.Write(fd, []byte(message))
			}
			unix.Close(fd)
		}
	})
}
