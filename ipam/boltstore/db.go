// Package boltstore keeps leases, and rows for the hook, in one bbolt file that many short-lived
// processes share.
//
// The file belongs on a tmpfs: starting a container then syncs nothing to a disk, and a boot, which
// ends every container, frees every lease. Each visit opens the file and holds it exclusively until
// it closes it again.
//
// A file that bbolt cannot read, or that has rows which contradict each other, gives an error that
// wraps [ipam.ErrCorrupt], and the caller decides what to do about it. Only root can write the file,
// and a memory file system returns what was written: so the package does not look for changed bytes
// in a file that is valid for bbolt.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// DB is a database file. The file is open only during a visit, so DB has no Close. It is safe for
// concurrent use.
type DB struct {
	// Now returns the time that quarantines are measured by. Set it before the first use; nil means
	// the host's clock boottime, which cannot be set. Leases are returned with times of the wall clock.
	Now func() time.Time

	path string
	turn chan struct{} // one visit at a time; a channel, so that a wait can end with a context
	open *session      // guarded by turn

	damaged atomic.Value // os.FileInfo of the file that was last found to be damaged, see MoveAside
}

// session is the state of an open file, from opening to closing it.
type session struct {
	lock   *os.File
	file   *os.File
	info   os.FileInfo // of file, when it was opened
	bolt   *bbolt.DB
	since  time.Time
	holds  int
	closed chan struct{}
	wrote  bool
	broken error // the damage that was found; nil if none
	stuck  bool  // bbolt panicked: it may still hold locks of its own
}

// Open returns the database at path. It does nothing yet: the first visit creates the file and its
// directory if they do not exist.
func Open(path string) *DB { return &DB{path: path, turn: make(chan struct{}, 1)} }

// now returns the time that quarantines are measured by, and the time of the wall clock after it.
func (db *DB) now() (now time.Time, wall time.Duration) {
	if db.Now != nil {
		return db.Now(), 0
	}
	now = time.Unix(0, int64(boottime.Now()))
	return now, time.Since(now)
}

// tx returns a transaction that begins now.
func (db *DB) tx(tx *bbolt.Tx) *Tx {
	t := &Tx{tx: tx}
	t.now, t.wall = db.now()
	return t
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
		db.open.holds--
		if db.open.holds > 0 {
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
		return fmt.Errorf("use database %q: %w", db.path, context.Cause(ctx))
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
		return s.bolt.View(func(tx *bbolt.Tx) error { return f(db.tx(tx)) })
	})
}

// Update runs f in a transaction. If f returns an error, the transaction is rolled back. f must not
// begin another transaction.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) error {
	return db.visit(ctx, func(s *session) error {
		s.wrote = true
		return s.bolt.Update(func(tx *bbolt.Tx) error { return f(db.tx(tx)) })
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
	return db.run(db.open, f)
}

// run calls f and turns what bbolt does with a damaged file into an error: bbolt panics, or reads
// beyond the end of a file that was truncated, which the kernel answers with SIGBUS. Any other
// panic is a bug in f, and is passed on.
func (db *DB) run(s *session, f func(*session) error) (err error) {
	if s.broken != nil {
		return s.broken
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if !isFault(r) && !inBolt() {
			panic(r)
		}
		s.stuck = true
		err = db.condemn(s, fmt.Errorf("%v", r))
	}()
	err = f(s)
	if cause, found := errors.AsType[damage](err); found {
		return db.condemn(s, cause)
	}
	return err
}

// isFault reports whether a panic comes from a memory address that cannot be read, other than a nil
// pointer: only the mapped file has such addresses.
func isFault(r any) bool {
	_, ok := r.(interface{ Addr() uintptr })
	return ok
}

// inBolt reports whether the current panic began in bbolt: in the first function below
// runtime.gopanic that does not belong to the runtime. The caller is the deferred function.
func inBolt() bool {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for panicked := false; ; {
		f, more := frames.Next()
		if panicked && !strings.HasPrefix(f.Function, "runtime.") {
			return strings.HasPrefix(f.Function, "go.etcd.io/bbolt")
		}
		panicked = panicked || f.Function == "runtime.gopanic"
		if !more {
			return false
		}
	}
}

// damage is an error about a file or rows that cannot be read, or rows that contradict each other.
type damage struct{ error }

func damaged(format string, args ...any) damage { return damage{fmt.Errorf(format, args...)} }

// condemn returns the error for a damaged file, which further visits of the session get too. It
// remembers the file for MoveAside.
func (db *DB) condemn(s *session, cause error) error {
	db.damaged.Store(s.info)
	s.broken = fmt.Errorf("%w: %q: %w", ipam.ErrCorrupt, db.path, cause)
	return s.broken
}

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

// close closes the file, after it made the file smaller if that is worthwhile. The caller holds
// turn.
func (db *DB) close() error {
	s := db.open
	db.open = nil
	defer close(s.closed)
	defer s.lock.Close()
	if s.wrote && s.broken == nil {
		// If this fails, the file stays large, and nothing else is lost. What was written is in the
		// file, and must not be reported as failed.
		_ = db.run(s, db.compact)
	}
	return s.closeFile()
}

func (s *session) closeFile() error {
	if s.bolt != nil && !s.stuck {
		return s.bolt.Close()
	}
	// bbolt's Close might never return. Its flock would outlive the descriptor, because the mapping
	// keeps the open file. If bbolt.Open returned an error, it has closed the file already.
	_ = unix.Flock(int(s.file.Fd()), unix.LOCK_UN)
	if err := s.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
