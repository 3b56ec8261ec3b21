//go:build !vm

// On an emulated machine two floods alone are more than its processors can do.

package main

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// Others' floods do not keep a user out: each start amid them is done within the
// hook's own time.
func TestBrokerAmidFloods(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	mustRaiseFiles(t)
	stop := make(chan struct{})
	floods := make(chan error, 2)
	pid := testenv.NewRootless(t, mallory).Pid
	for _, message := range []string{"", fmt.Sprintf(`{"version":1,"verb":"attach","container":"m","pid":%d,"wants":[{"network":"web"}]}`, pid)} {
		go func() { floods <- flood(b.socket(), message, stop) }()
	}
	for i := range 5 {
		b.works(fmt.Sprintf("amid%d", i))
	}
	close(stop)
	for range 2 {
		must(t, <-floods)
	}
	b.works("after")
	if lines := b.why(bob); len(lines) > 0 {
		t.Errorf("bob is told of %q", lines)
	}
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
