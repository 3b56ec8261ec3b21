package probe

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waiter waits for a descriptor with one system call on the caller's thread. The runtime's poller
// would pass the event to a locked thread by way of another one, and its timers can be late by
// milliseconds while threads are in system calls: too late for a window of two round trips.
type waiter struct{ eventfd int }

func newWaiter() (waiter, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return waiter{-1}, os.NewSyscallError("eventfd", err)
	}
	return waiter{fd}, nil
}

// wait returns nil when fd is readable or has an error to read. It returns the context's error when
// ctx ends first, and context.DeadlineExceeded at the time until.
func (w waiter) wait(ctx context.Context, fd int, until time.Time) error {
	defer w.wakeOnEnd(ctx)()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(w.eventfd), Events: unix.POLLIN}}
	for {
		timeout, err := remaining(ctx, until)
		if err != nil {
			return err
		}
		// If the call timed out or was interrupted, the next iteration finds out which.
		if err := poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("ppoll", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// shortWait is the longest wait during which it does not pay to let another thread use the
// processor.
const shortWait = 3 * time.Millisecond

// poll waits for one of the descriptors. A short wait keeps its processor: otherwise the runtime
// would give it to another thread, and have to wake that thread.
func poll(fds []unix.PollFd, timeout unix.Timespec) error {
	if timeout.Nano() > shortWait.Nanoseconds() || runtime.GOMAXPROCS(0) == 1 {
		_, err := unix.Ppoll(fds, &timeout, nil)
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// wakeOnEnd makes the end of the context an event of the eventfd. The returned function undoes that
// and leaves the eventfd empty. Neither the write nor the read can fail: an empty eventfd accepts a
// write, and it has been written to once woken is closed.
func (w waiter) wakeOnEnd(ctx context.Context) func() {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(w.eventfd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	return func() {
		if !stop() {
			<-woken
			_, _ = unix.Read(w.eventfd, make([]byte, 8))
		}
	}
}

// remaining returns the time to until, or to the context's deadline if that is earlier. It uses the
// clock, because the context's own timer may be late.
func remaining(ctx context.Context, until time.Time) (unix.Timespec, error) {
	if err := ctx.Err(); err != nil {
		return unix.Timespec{}, err
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	left := time.Until(until)
	if left <= 0 {
		return unix.Timespec{}, context.DeadlineExceeded
	}
	return unix.NsecToTimespec(left.Nanoseconds()), nil
}
