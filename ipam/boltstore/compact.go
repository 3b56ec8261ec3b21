package boltstore

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
)

// A bbolt file never shrinks. Each visit reads the list of its free pages, and each transaction
// writes it. After a pool of a million leases was removed, a claim would cost more than it did in
// that pool.
const (
	smallFile = 4 << 20  // bytes: reading the list of a file of this size costs next to nothing
	batch     = 64 << 10 // bytes that one transaction copies
)

// compact copies the contents of a file of which more than a quarter is free into a new file, and
// renames that over the old one. Containers that start use the pages that others have left; only
// the end of many at once leaves that much. A process that is killed here leaves one of the two
// files, undamaged.
func (db *DB) compact(s *session) error {
	var size int64
	if err := s.bolt.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	}); err != nil {
		return err
	}
	if size <= smallFile || int64(s.bolt.Stats().FreeAlloc) <= size/4 {
		return nil
	}
	to, err := db.openNew()
	if err != nil {
		return err
	}
	err = bbolt.Compact(to, s.bolt, batch)
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(db.newPath(), db.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(db.newPath()))
	}
	return nil
}
