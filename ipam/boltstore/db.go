// Package boltstore keeps leases, and rows for the hook, in one bbolt file
// that many short-lived processes share.
//
// The file belongs on a tmpfs: nothing is synced to a disk on the path of a
// start, and a boot, which ends every container, frees every lease. Each visit
// opens the file, and shuts everybody else out until it is closed again.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
)

// layout is the version of what is in the file. Another one is refused, never
// misread.
const layout = "1"

var (
	bucketMeta = []byte("boltstore")
	keyLayout  = []byte("layout")
)

// DB is a database file. It is closed except during a visit, so there is
// nothing to close in the end. Safe for concurrent use.
type DB struct {
	path string
	now  func() time.Time

	turn chan struct{} // guards what follows; a channel, to be waited for with a context
	refs int
	lock *os.File
	bolt *bbolt.DB
}

// Open names a database file, which is made, with its directory, when it is
// first needed. now is the clock that quarantines are measured by; nil is
// time.Now.
func Open(path string, now func() time.Time) *DB {
	if now == nil {
		now = time.Now
	}
	return &DB{path: path, now: now, turn: make(chan struct{}, 1)}
}

// Hold keeps the file open during f, for several visits in a row. Other
// processes wait: f must not wait for the network.
func (db *DB) Hold(ctx context.Context, f func() error) (err error) {
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.leave()) }()
	return f()
}

// View runs f in a transaction that changes nothing.
func (db *DB) View(ctx context.Context, f func(*Tx) error) error {
	return db.visit(ctx, func(b *bbolt.DB) error {
		return b.View(func(tx *bbolt.Tx) error { return f(&Tx{tx, db.now()}) })
	})
}

// Update runs f in a transaction; an error takes back what it changed.
func (db *DB) Update(ctx context.Context, f func(*Tx) error) error {
	return db.visit(ctx, func(b *bbolt.DB) error {
		return b.Update(func(tx *bbolt.Tx) error { return f(&Tx{tx, db.now()}) })
	})
}

// visit runs one transaction. A damaged page makes bbolt panic, or read beyond
// the end of the file, which the kernel answers with SIGBUS: both become
// ErrCorrupt. The file is then not closed in good order: locks within bbolt
// may still be held by the transaction that failed.
func (db *DB) visit(ctx context.Context, f func(*bbolt.DB) error) (err error) {
	return db.Hold(ctx, func() (err error) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if r := recover(); r != nil {
				db.bolt = nil
				err = db.corrupt(fmt.Errorf("%v", r))
			}
		}()
		if db.bolt == nil {
			return db.corrupt(errors.New("an earlier visit found it so"))
		}
		return f(db.bolt)
	})
}

func (db *DB) corrupt(cause error) error {
	return fmt.Errorf("%w: %s: %w", ipam.ErrCorrupt, db.path, cause)
}

func (db *DB) enter(ctx context.Context) error {
	select {
	case db.turn <- struct{}{}:
	case <-ctx.Done():
		return db.waited(ctx)
	}
	defer func() { <-db.turn }()
	if db.refs == 0 {
		if err := db.open(ctx); err != nil {
			return err
		}
	}
	db.refs++
	return nil
}

func (db *DB) leave() error {
	db.turn <- struct{}{}
	defer func() { <-db.turn }()
	if db.refs--; db.refs > 0 {
		return nil
	}
	var err error
	if db.bolt != nil {
		err = db.bolt.Close()
	}
	db.bolt = nil
	return errors.Join(err, db.lock.Close())
}

func (db *DB) waited(ctx context.Context) error {
	return fmt.Errorf("wait for the lock of %s: %w", db.path, ctx.Err())
}

// open takes the lock and opens the file. A lock of our own comes before
// bbolt's: that one is polled for every 50 ms, and 32 starts at once would wait
// for most of a second.
func (db *DB) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(filepath.Dir(db.path), 0o755); err != nil {
		return err
	}
	if db.lock, err = db.takeLock(ctx); err != nil {
		return err
	}
	if db.bolt, err = db.openBolt(); err != nil {
		return errors.Join(err, db.lock.Close())
	}
	return nil
}

// takeLock waits in the kernel, in a goroutine that is left behind when ctx
// ends: it then gives the lock back as soon as it gets it.
func (db *DB) takeLock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(db.path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		return f, nil
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(fd) }()
	select {
	case err := <-locked:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		return f, nil
	case <-ctx.Done():
		go func() {
			<-locked
			f.Close()
		}()
		return nil, db.waited(ctx)
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (db *DB) openBolt() (b *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = db.corrupt(fmt.Errorf("%v", r))
		}
	}()
	b, err = bbolt.Open(db.path, 0o600, &bbolt.Options{
		NoSync: true, NoGrowSync: true, // see the package comment
		FreelistType: bbolt.FreelistMapType,
		Timeout:      time.Second, // our own lock is held: nobody else can have bbolt's for long
	})
	switch {
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return nil, db.corrupt(err)
	case err != nil:
		var path *fs.PathError
		if errors.As(err, &path) || errors.Is(err, bolterrors.ErrTimeout) {
			return nil, fmt.Errorf("open database %s: %w", db.path, err)
		}
		return nil, db.corrupt(err) // "file size too small", an unreadable freelist
	}
	if err := checkLayout(b); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", db.path, err), b.Close())
	}
	return b, nil
}

func checkLayout(b *bbolt.DB) error {
	var found string
	if err := b.View(func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(bucketMeta); meta != nil {
			found = string(meta.Get(keyLayout))
		}
		return nil
	}); err != nil {
		return err
	}
	switch found {
	case layout:
		return nil
	case "":
		return b.Update(func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucketIfNotExists(bucketMeta)
			if err != nil {
				return err
			}
			return meta.Put(keyLayout, []byte(layout))
		})
	}
	return fmt.Errorf("it has layout %q and this program knows %q: use the version that made it, or stop all containers and delete it", found, layout)
}

// MoveAside renames a damaged file, so that a new one is made on the next
// visit, and gives its new name.
func (db *DB) MoveAside(ctx context.Context) (name string, err error) {
	lock, err := db.takeLock(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	name = db.path + ".corrupt-" + db.now().UTC().Format("20060102T150405.000000000")
	return name, os.Rename(db.path, name)
}
