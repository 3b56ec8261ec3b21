package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The lock file has two locks, on a byte each, and holds the seal. Who wants
// the database takes the queue first and gives it back once it has the
// database: otherwise a process that visits again and again takes the lock
// from under those who wait, who have yet to wake up.
//
// Open file description locks (fcntl(2)) rather than bbolt's flock, which is
// polled for every 50 ms: 32 starts at once would wait for most of a second.
// They end with the descriptor, however its process ends.
const (
	byteQueue = iota
	byteDatabase
)

// takeLock waits in the kernel, in a goroutine: it takes a thread while there
// is something to wait for, and no timer has to guess how long. When ctx ends
// first it is left behind, and gives the lock back as soon as it gets it.
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

// pass goes through the queue to the database.
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

// own takes bbolt's lock, flock(2) on the database itself, before that is read.
// Whoever has the lock file has it at once, but where somebody deleted the lock
// file in the middle of a visit, or a process was killed in one: the kernel
// lets go of its files one after the other, and nobody can wait for flock and
// ctx in one.
func (db *DB) own(ctx context.Context, f *os.File) error {
	for tries := 0; ; tries++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if tries == 1000 {
			return fmt.Errorf("lock database %q: another process has it open without its lock file: was %q deleted? Try again: %w", db.path, db.path+".lock", err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return db.waited(ctx)
		}
	}
}

// waited says what ctx ended while waiting for: other processes, or other
// goroutines of this one.
func (db *DB) waited(ctx context.Context) error {
	return fmt.Errorf("wait for database %q, which others are using: %w", db.path, context.Cause(ctx))
}
