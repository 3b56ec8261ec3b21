// Package boltstore keeps leases, and rows for the hook, in one bbolt file
// that many short-lived processes share.
//
// The file belongs on a tmpfs: nothing is synced to a disk on the path of a
// start, and a boot, which ends every container, frees every lease. Each visit
// opens the file, and shuts everybody else out until it is closed again. A
// damaged file is an error, [ipam.ErrCorrupt], never a crash, and never
// believed; what to make of it is for the caller to decide.
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

// DB is a database file. It is closed except during a visit, so there is
// nothing to close in the end. Safe for concurrent use.
type DB struct {
	// Now is the clock that quarantines are measured by. Set it before the
	// first use; nil is time.Now.
	Now func() time.Time

	path string
	turn chan struct{} // one visit at a time; a channel, to be waited for with a context
	open *session      // guarded by turn
}

// session is the time from opening the file to closing it.
type session struct {
	lock   *os.File
	file   *os.File // bolt's
	bolt   *bbolt.DB
	since  time.Time
	holds  int
	closed chan struct{}
	txid   uint64 // the last one written, 0 if none
	drop   bool   // a table was dropped
	broken error  // the damage that was found
}

// Open names a database file, which is made, with its directory, when it is
// first needed. Nothing is done yet.
func Open(path string) *DB { return &DB{path: path, turn: make(chan struct{}, 1)} }

func (db *DB) now() time.Time {
	if db.Now == nil {
		return time.Now()
	}
	return db.Now()
}

// Goroutines of one process that hold the file one after the other, each
// before the last has let go, would never let go of it together. After
// longHold the next waits a little for the others. It cannot wait for as long
// as they take: it may be called from within one of theirs.
const (
	longHold = 50 * time.Millisecond
	briefly  = 5 * time.Millisecond
)

// Hold keeps the file open during f, for several visits in a row. Other
// processes wait: f must not wait for the network. Holds may be nested, and
// held by several goroutines at once; the last to leave closes the file.
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
		case <-time.After(briefly):
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

// View runs f in a transaction that changes nothing. f must not begin another.
func (db *DB) View(ctx context.Context, f func(*Tx) error) error {
	return db.visit(ctx, func(s *session) error {
		return s.bolt.View(func(tx *bbolt.Tx) error { return f(&Tx{tx: tx, now: db.now()}) })
	})
}

// Update runs f in a transaction; an error takes back what it changed. f must
// not begin another.
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

// visit runs one transaction.
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

// run turns what a damaged file does to bbolt into an error: it panics, or
// reads beyond the end of a file that was cut off a moment ago, which the
// kernel answers with SIGBUS. A panic over a file that is whole is a bug in f,
// and goes on.
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

// damage is a contradiction within the file.
type damage struct{ error }

func damaged(format string, args ...any) damage { return damage{fmt.Errorf(format, args...)} }

// begin opens the file if it is not. The caller has the turn.
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

// close closes the file, and seals it if it was written. The caller has the
// turn.
func (db *DB) close() error {
	s := db.open
	db.open = nil
	defer close(s.closed)
	defer s.lock.Close()
	if s.broken != nil {
		// bbolt may still hold locks of its own, and its Close wait for ever.
		// Its lock on the file would outlive the descriptor, in the mapping.
		unlock := unix.Flock(int(s.file.Fd()), unix.LOCK_UN)
		return errors.Join(unlock, s.file.Close())
	}
	if s.txid != 0 {
		// Without a seal the next visit takes longer, and nothing else is lost:
		// what was written is, and must not be reported as failed.
		if now, err := stat(s.file); err == nil {
			_ = seal{now, s.txid, ""}.write(s.lock)
			if (s.drop || s.txid%wasteEvery == 0) && wasteful(s.file, now.size) {
				_ = db.compact(s)
			}
		}
	}
	return s.bolt.Close()
}
