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

// A waiter waits for a descriptor in one system call on the caller's thread.
// The runtime's poller would hand the event to a locked thread by way of
// another one, and its timers can be late by milliseconds while threads sit in
// system calls: too late for a window of two round trips.
type waiter struct{ eventfd int }

func newWaiter() (waiter, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return waiter{-1}, os.NewSyscallError("eventfd", err)
	}
	return waiter{fd}, nil
}

// wait returns nil when fd can be read (or has an error to be read), and the
// context's error when that ends first, or until comes.
func (w waiter) wait(ctx context.Context, fd int, until time.Time) error {
	defer w.wakeOnEnd(ctx)()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(w.eventfd), Events: unix.POLLIN}}
	for {
		timeout, err := remaining(ctx, until)
		if err != nil {
			return err
		}
		// Nothing ready, interrupted: the next turn finds out why.
		if err := poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("ppoll", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// short is a wait for which it does not pay to have another thread take over what
// this one would do meanwhile.
const shortWait = 3 * time.Millisecond

// poll waits for one of the descriptors. A short wait keeps its processor: the
// runtime would give that to another thread, and wake it for that.
func poll(fds []unix.PollFd, timeout unix.Timespec) error {
	if timeout.Nano() > shortWait.Nanoseconds() || runtime.GOMAXPROCS(0) == 1 {
		_, err := unix.Ppoll(fds, &timeout, nil)
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)), uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// wakeOnEnd makes the end of the context an event of the eventfd. What it
// returns undoes that, and leaves the eventfd empty. An eventfd that is empty
// takes a write, and has been written to once woken is closed: neither fails.
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

// remaining gives the time up to until, or to the context's deadline where that is
// before. The context's own timer may be late: the clock decides.
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
