// Package boltstore keeps leases, and rows for the hook, in one bbolt file that many short-lived
// processes share.
//
// The file belongs on a tmpfs: starting a container then syncs nothing to a disk, and a boot, which
// ends every container, frees every lease. Each visit opens the file and holds it exclusively until
// it closes it again. A damaged file gives an error, [ipam.ErrCorrupt]; it never causes a crash,
// and none of its rows is used. The caller decides what to do about it.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// DB is a database file. The file is open only during a visit, so DB has no Close. It is safe for
// concurrent use.
type DB struct {
	// Now returns the time that quarantines are measured by. Set it before the first use; nil means
	// time.Now.
	Now func() time.Time

	path string
	turn chan struct{} // one visit at a time; a channel, so that a wait can end with a context
	open *session      // guarded by turn
}

// session is the state of an open file, from opening to closing it.
type session struct {
	lock   *os.File
	file   *os.File // bbolt closes it
	bolt   *bbolt.DB
	since  time.Time
	holds  int
	closed chan struct{}
	txid   uint64 // the last transaction written, 0 if none
	drop   bool   // a table was dropped
	broken error  // the damage that was found; nil if none
}

// Open returns the database at path. It does nothing yet: the first visit creates the file and its
// directory if they do not exist.
func Open(path string) *DB { return &DB{path: path, turn: make(chan struct{}, 1)} }

func (db *DB) now() time.Time {
	if db.Now == nil {
		return time.Now()
	}
	return db.Now()
}

// If holds of several goroutines overlap without a gap, the file is never closed. After longHold,
// enter therefore waits for the others to leave. It waits for overlapWait at the most, since the
// caller may itself be within one of the holds.
const (
	longHold    = 50 * time.Millisecond
	overlapWait = 5 * time.Millisecond
)

// Hold keeps the file open during f, so that f can make several visits without another process in
// between. Other processes wait: f must not wait for the network. Holds may be nested and may
// overlap in several goroutines; the last one to end closes the file.
func (db *DB) Hold(ctx context.Context, f func() error) (err error) {
	if err = db.enter(ctx); err != nil {
		return err
	}
	defer func() {
		db.turn <- struct{}{}
		defer func() { <-db.turn }()
		if db.open.holds--; db.open.holds > 0 {
			return
		}
		if cerr := db.close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}()
	return f()
}

func (db *DB) enter(ctx context.Context) error {
	if err := db.takeTurn(ctx); err != nil {
		return err
	}
	if s := db.open; s != nil && time.Since(s.since) > longHold {
		<-db.turn
		select {
		case <-s.closed:
		case <-time.After(overlapWait):
		case <-ctx.Done():
		}
		if err := db.takeTurn(ctx); err != nil {
			return err
		}
	}
	defer func() { <-db.turn }()
	if err := db.begin(ctx); err != nil {
		return err
	}
	db.open.holds++
	return nil
}

func (db *DB) takeTurn(ctx context.Context) error {
	if ctx.Err() != nil {
		return db.waited(ctx)
	}
	select {
	case db.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return db.waited(ctx)
	}
}

// View runs f in a read-only transaction. f must not begin another transaction.
func (db *DB) View(ctx context.Context, f func(*Tx) error) error {
	return db.visit(ctx, func(s *session) error {
		return s.bolt.View(func(tx *bbolt.Tx) error { return f(&Tx{tx: tx, now: db.now()}) })
	})
}

// Update runs f in a transaction. If f returns an error, the transaction is rolled back. f must not
// begin another transaction.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) error {
	return db.visit(ctx, func(s *session) error {
		t := &Tx{now: db.now()}
		var txid uint64
		err := s.bolt.Update(func(tx *bbolt.Tx) error {
			t.tx, txid = tx, uint64(tx.ID())
			if err := f(t); err != nil {
				return err
			}
			return t.addUp()
		})
		if err == nil {
			s.txid, s.drop = txid, s.drop || t.drop
		}
		return err
	})
}

// visit runs one transaction, and opens and closes the file around it unless a Hold keeps it open.
func (db *DB) visit(ctx context.Context, f func(*session) error) (err error) {
	if err := db.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-db.turn }()
	if err := db.begin(ctx); err != nil {
		return err
	}
	if db.open.holds == 0 {
		defer func() {
			if cerr := db.close(); cerr != nil {
				err = errors.Join(err, cerr)
			}
		}()
	}
	return db.run(f)
}

// run calls f and turns what bbolt does with a damaged file into an error: bbolt panics, or reads
// beyond the end of a file that has just been truncated, which the kernel answers with SIGBUS. A
// panic although the file is undamaged is a bug in f, and is passed on.
func (db *DB) run(f func(*session) error) (err error) {
	s := db.open
	if s.broken != nil {
		return s.broken
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if now, err := stat(s.file); err == nil {
			_, err = check(s.file, now.size)
			if err == nil || errors.Is(err, errLayout) {
				panic(r)
			}
		}
		s.broken = db.condemn(s.lock, s.file, fmt.Errorf("%v", r))
		err = s.broken
	}()
	err = f(s)
	if cause, found := errors.AsType[damage](err); found {
		s.broken = db.condemn(s.lock, s.file, cause)
		return s.broken
	}
	return err
}

// damage is an error about rows that contradict each other, or that cannot be read.
type damage struct{ error }

func damaged(format string, args ...any) damage { return damage{fmt.Errorf(format, args...)} }

// begin opens the file if it is not open. The caller holds turn.
func (db *DB) begin(ctx context.Context) (err error) {
	if db.open != nil {
		return nil
	}
	s := &session{since: time.Now(), closed: make(chan struct{})}
	if err := db.makeDir(); err != nil {
		return err
	}
	if s.lock, err = db.takeLock(ctx); err != nil {
		return err
	}
	if err := db.openFile(ctx, s); err != nil {
		return errors.Join(err, s.lock.Close())
	}
	db.open = s
	return nil
}

// close closes the file, and seals it if it was written. The caller holds turn.
func (db *DB) close() error {
	s := db.open
	db.open = nil
	defer close(s.closed)
	defer s.lock.Close()
	if s.broken != nil {
		// bbolt may still hold locks of its own, so that its Close would never return. Its flock
		// would outlive the descriptor, because the mapping keeps the open file.
		unlock := unix.Flock(int(s.file.Fd()), unix.LOCK_UN)
		return errors.Join(unlock, s.file.Close())
	}
	if s.txid != 0 {
		// If this fails, the next visit reads the whole file, and nothing else is lost. What was
		// written is in the file, and must not be reported as failed.
		if now, err := stat(s.file); err == nil {
			_ = seal{now, s.txid, ""}.write(s.lock)
			if (s.drop || s.txid%wasteEvery == 0) && wasteful(s.file, now.size) {
				_ = db.compact(s)
			}
		}
	}
	return s.bolt.Close()
}
