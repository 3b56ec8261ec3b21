package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
)

// layout is the version of the file's contents. A file of another version is refused, never
// misread. The file contains it twice, as 3=3, so that a flipped bit is found to be damage and not
// taken for another version.
const layout = "3"

var (
	bucketMeta = []byte("boltstore")
	keyLayout  = []byte("layout")
	keySum     = []byte("sum")
)

// errLayout is returned for a file of another layout.
var errLayout = errors.New("another version of this program created it: " +
	"use that version, or stop all containers and delete the file")

func (db *DB) makeDir() error {
	if err := os.MkdirAll(filepath.Dir(db.path), 0o755); err != nil {
		return fmt.Errorf("make the database's directory: %w", err)
	}
	return nil
}

// pageSize is in bytes. A claim parses and rewrites the pages from each tree's root to the leaf:
// with pages of a quarter of the usual size these trees have one level more, and the claim handles
// a third of the bytes. It is the smallest size for which bbolt finds its second meta page
// (getPageSize in its db.go).
const pageSize = 1024

// options returns how to open the file. Nothing is synced: see the package comment. The list of
// free pages is kept in the file, since opening would otherwise have to read all of it. It is an
// array, since each visit would have to build the maps again, and they would not give the first
// free page.
func options() *bbolt.Options {
	return &bbolt.Options{
		NoSync: true, NoGrowSync: true, NoStatistics: true,
		PageSize:     pageSize,
		FreelistType: bbolt.FreelistArrayType,
	}
}

// openFile opens the file and checks it. bbolt then gets the same descriptor, so that the file
// cannot be replaced between the check and the use.
func (db *DB) openFile(ctx context.Context, s *session) (err error) {
	s.file, err = db.fileOrNew(s.lock)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	err = db.own(ctx, s.file)
	if err == nil {
		err = db.trust(s.lock, s.file)
	}
	if err != nil {
		return errors.Join(err, s.file.Close())
	}
	o := options()
	o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return s.file, nil }
	if s.bolt, err = bbolt.Open(db.path, 0o600, o); err != nil {
		return fmt.Errorf("open database %q: %w", db.path, err)
	}
	if err := s.bolt.View(checkLayout); err != nil {
		return errors.Join(fmt.Errorf("database %q: %w", db.path, err), s.bolt.Close())
	}
	return nil
}

func (db *DB) fileOrNew(lock *os.File) (*os.File, error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW
	f, err := os.OpenFile(db.path, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := db.create(lock); err != nil {
		return nil, err
	}
	return os.OpenFile(db.path, flags, 0)
}

// create makes the file under another name and renames it, so that a process that is killed here
// does not leave an incomplete file under the database's name.
func (db *DB) create(lock *os.File) error {
	fresh := db.path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := bbolt.Open(fresh, 0o600, options())
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		return errors.Join(meta.Put(keyLayout, []byte(layout+"="+layout)), meta.Put(keySum, []byte("0")))
	})
	if err := errors.Join(err, b.Close(), seal{}.write(lock)); err != nil {
		return err
	}
	return os.Rename(fresh, db.path)
}

func checkLayout(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return errLayout
	}
	return sameLayout(meta.Get(keyLayout))
}

func sameLayout(found []byte) error {
	version, again, both := strings.Cut(string(found), "=")
	switch {
	case !both || version != again:
		return damaged("layout %q", found)
	case version != layout:
		return fmt.Errorf("layout %q, and this program knows %q: %w", version, layout, errLayout)
	}
	return nil
}

// MoveAside renames a damaged file, so that the next visit creates a new one, and returns its new
// name. It returns "" if the file is undamaged or does not exist: another process has found the
// damage first, and the new file is the valid one. It must not be called from within a Hold.
func (db *DB) MoveAside(ctx context.Context) (name string, err error) {
	if err := db.makeDir(); err != nil {
		return "", err
	}
	lock, err := db.takeLock(ctx)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	f, err := os.OpenFile(db.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open database: %w", err)
	}
	defer f.Close()
	if err := db.own(ctx, f); err != nil {
		return "", err
	}
	if !errors.Is(db.trust(lock, f), ipam.ErrCorrupt) {
		return "", nil
	}
	name = db.path + ".corrupt-" + db.now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(db.path, name); err != nil {
		return "", fmt.Errorf("move the damaged database aside: %w", err)
	}
	return name, nil
}
