package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The lock file is empty, and has two locks, on one byte each. A process that wants the
// database takes the queue's lock first and releases it once it has the database's lock. Without
// the queue, a process that visits again and again would take the lock before a waiting process has
// woken up.
//
// These are open file description locks (fcntl(2)) and not bbolt's flock, for which bbolt polls
// every 50 ms: 32 simultaneous starts would wait for most of a second. The kernel releases them
// with the descriptor, however the process ends.
const (
	byteQueue = iota
	byteDatabase
)

// takeLock returns the lock file with the database's lock held. It waits in the kernel, in a
// goroutine of its own: that takes a thread for the time of the wait, and needs no polling
// interval. If ctx ends first, the goroutine stays behind, and closes the file as soon as it has
// the lock.
func (db *DB) takeLock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(db.path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = pass(f, unix.F_OFD_SETLK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		locked := make(chan error)
		go func() {
			err := pass(f, unix.F_OFD_SETLKW)
			select {
			case locked <- err:
			case <-ctx.Done():
				f.Close()
			}
		}()
		select {
		case err = <-locked:
		case <-ctx.Done():
			return nil, db.waited(ctx)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return f, nil
}

// pass takes the queue's lock, then the database's, and releases the queue's.
func pass(f *os.File, cmd int) error {
	if err := ofd(f, cmd, byteQueue, unix.F_WRLCK); err != nil {
		return err
	}
	err := ofd(f, cmd, byteDatabase, unix.F_WRLCK)
	return errors.Join(err, ofd(f, unix.F_OFD_SETLK, byteQueue, unix.F_UNLCK))
}

func ofd(f *os.File, cmd int, at int64, kind int16) error {
	for {
		err := unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// own takes bbolt's lock, flock(2) on the database itself, before the file is read. A process that
// has the lock file gets it at once, except in two cases: the lock file was deleted during a visit,
// or a process was killed during one (the kernel releases its files one after the other). It polls,
// since no call waits for both flock and ctx.
func (db *DB) own(ctx context.Context, f *os.File) error {
	for tries := 0; ; tries++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if tries == 1000 {
			return fmt.Errorf("lock database %q: another process has it open without the lock file %q, "+
				"which may have been deleted: try again: %w", db.path, db.path+".lock", err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return db.waited(ctx)
		}
	}
}

// waited returns the error for a wait that ctx ended: other processes, or other goroutines of this
// process, were using the database.
func (db *DB) waited(ctx context.Context) error {
	return fmt.Errorf("wait for database %q: it is in use: %w", db.path, context.Cause(ctx))
}
