package main

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestServiceDescriptors checks that the service keeps no descriptors that callers send.
func TestServiceDescriptors(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	b.works("before")
	count := func() int {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.cmd.Process.Pid))
		must(t, err)
		return len(fds)
	}
	before := count()
	open := func(path string, flags int) func(t *testing.T) []int {
		return func(t *testing.T) []int {
			f, err := os.OpenFile(path, flags, 0)
			must(t, err)
			t.Cleanup(func() { f.Close() })
			return []int{int(f.Fd())}
		}
	}
	for what, fds := range map[string]func(t *testing.T) []int{
		"a regular file":             open("/proc/self/exe", unix.O_RDONLY),
		"O_PATH":                     open("/etc", unix.O_PATH),
		"a directory":                open("/", unix.O_RDONLY|unix.O_DIRECTORY),
		"the host's namespace":       open("/proc/self/ns/net", unix.O_RDONLY),
		"the socket itself":          func(t *testing.T) []int { return []int{b.socketOf(t, alice)} },
		"as many as there may be":    func(t *testing.T) []int { return repeat(open("/etc", unix.O_PATH)(t)[0], 253) },
		"a pipe that tells who held": pipeEnd,
	} {
		t.Run(what, func(t *testing.T) {
			b := b.on(t)
			sent := fds(t)
			for range 20 {
				b.ask(alice, []byte(`{"version":2,"verb":"attach","container":"c1","pid":1,"wants":[{"network":"nope"}]}`),
					unix.UnixRights(sent...))
			}
			b.works("after")
		})
	}
	testenv.Eventually(t, "the service to hold no more than before", func() error {
		if n := count(); n > before {
			return fmt.Errorf("%d descriptors, %d before", n, before)
		}
		return nil
	})
}

func repeat(fd, times int) (fds []int) {
	for range times {
		fds = append(fds, fd)
	}
	return fds
}

func (b *brokered) socketOf(t *testing.T, uid int) int {
	t.Helper()
	raw, err := b.on(t).mustDialBy(uid).SyscallConn()
	must(t, err)
	var copied int
	must(t, raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }))
	must(t, err)
	t.Cleanup(func() { unix.Close(copied) })
	return copied
}

// pipeEnd returns the writing end of a pipe. At the end of the test, its reading end
// checks that all copies were closed.
func pipeEnd(t *testing.T) []int {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() {
		w.Close()
		must(t, r.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the pipe is still open: %v", err)
		}
		r.Close()
	})
	return []int{int(w.Fd())}
}
