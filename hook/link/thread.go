package link

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inside runs f on the caller's thread, which is in the namespace of fd meanwhile.
// It does what containernetworking's ns.Do does, but on no thread of its own: in
// a process that is a few milliseconds old that would be a new one, and two
// processors to wake, for each step.
//
// A thread that cannot be brought back ends the process, as no goroutine may ever
// run on it again.
func inside(fd int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Where the thread is now, which need not be where the process began: f may
	// come here again.
	back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the way back from a network namespace: %w", err)
	}
	defer unix.Close(back)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", explainErrno(err))
	}
	defer func() {
		if err := unix.Setns(back, unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("return from a network namespace: %v", err))
		}
	}()
	return f()
}
