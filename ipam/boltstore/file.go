package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// layout is the version of the file's contents. A file of another version is refused, never
// misread.
const layout = "5"

var (
	bucketMeta = []byte("boltstore")
	keyLayout  = []byte("layout")
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
		NoSync: true, NoGrowSync: true,
		PageSize:     pageSize,
		FreelistType: bbolt.FreelistArrayType,
	}
}

// openFile opens the file and checks what bbolt does not: that it has all its pages, and the
// layout. bbolt gets the descriptor, so that the file is the one that MoveAside would rename.
func (db *DB) openFile(ctx context.Context, s *session) (err error) {
	if s.file, err = db.fileOrNew(); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err = db.own(ctx, s.file); err == nil {
		s.info, err = s.file.Stat()
	}
	if err == nil {
		err = db.run(s, db.openBolt)
	}
	if err != nil {
		return errors.Join(err, s.closeFile())
	}
	return nil
}

func (db *DB) openBolt(s *session) (err error) {
	if s.info.Size() == 0 { // bbolt would make a database of it
		return damaged("it is empty")
	}
	o := options()
	o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return s.file, nil }
	if s.bolt, err = bbolt.Open(db.path, 0o600, o); err != nil {
		if _, failed := errors.AsType[unix.Errno](err); !failed {
			err = damage{err}
		}
		return fmt.Errorf("open database %q: %w", db.path, err)
	}
	return s.bolt.View(func(tx *bbolt.Tx) error {
		if tx.Size() > s.info.Size() {
			return damaged("it is truncated: %d bytes are left of %d", s.info.Size(), tx.Size())
		}
		if err := checkLayout(tx); err != nil {
			return fmt.Errorf("database %q: %w", db.path, err)
		}
		return nil
	})
}

func (db *DB) fileOrNew() (*os.File, error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW
	f, err := os.OpenFile(db.path, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := db.create(); err != nil {
		return nil, err
	}
	return os.OpenFile(db.path, flags, 0)
}

// create makes the file under another name and renames it, so that a process that is killed here
// does not leave an incomplete file under the database's name.
func (db *DB) create() error {
	b, err := db.openNew()
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		return meta.Put(keyLayout, []byte(layout))
	})
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	return os.Rename(db.newPath(), db.path)
}

// newPath is the name of a file until it is complete.
func (db *DB) newPath() string { return db.path + ".new" }

// openNew opens an empty file at newPath.
func (db *DB) openNew() (*bbolt.DB, error) {
	if err := os.Remove(db.newPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return bbolt.Open(db.newPath(), 0o600, options())
}

func checkLayout(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return errLayout
	}
	if version := string(meta.Get(keyLayout)); version != layout {
		return fmt.Errorf("layout %q, and this program knows %q: %w", version, layout, errLayout)
	}
	return nil
}

// MoveAside renames the file that a visit through db found to be damaged, so that the next visit
// creates a new one, and returns its new name. It returns "" if there is no such file under the
// database's name: no visit found damage, or another process has moved the file first, and the file
// that it created since is the valid one. It must not be called from within a Hold.
func (db *DB) MoveAside(ctx context.Context) (name string, err error) {
	if err := db.makeDir(); err != nil {
		return "", err
	}
	lock, err := db.takeLock(ctx)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	now, err := os.Lstat(db.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if found, ok := db.damaged.Load().(os.FileInfo); !ok || !os.SameFile(found, now) {
		return "", nil
	}
	name = db.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(db.path, name); err != nil {
		return "", fmt.Errorf("move the damaged database aside: %w", err)
	}
	return name, nil
}
