package netns

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inside moves the caller's thread into the namespace of fd, runs f, and moves it back.
// ns.Do of containernetworking does the same on a separate thread. In a process that is a
// few milliseconds old, that would create a thread and wake two processors for each step.
//
// If the thread cannot be moved back, the process panics, because no goroutine may run on
// that thread again.
func inside(fd int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The thread's current namespace. It may differ from the process's first one,
	// because f may call inside again.
	back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the thread's own network namespace: %w", err)
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

// explainErrno adds the missing capability to EPERM.
func explainErrno(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: CAP_SYS_ADMIN is needed", err)
	}
	return err
}
