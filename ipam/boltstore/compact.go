package boltstore

import (
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
)

// A bbolt file never shrinks. Each visit reads the list of its free pages, and each transaction
// writes it. After a pool of a million leases was removed, a claim would cost more than it did in
// that pool.
const (
	smallFile = 4 << 20  // bytes: reading the list of a file of this size costs next to nothing
	batch     = 64 << 10 // bytes that one transaction copies

	// wasteEvery is the number of transactions between two checks of a file from which no pool was
	// removed: the check costs a claim three reads in a large file.
	wasteEvery = 64
)

// wasteful reports whether more than a quarter of a file's pages is free. Containers that start use
// the pages that others have left; only the end of many at once leaves that much.
func wasteful(f io.ReaderAt, size int64) bool {
	if size <= smallFile {
		return false
	}
	m, err := readMetas(f)
	if err != nil {
		return false
	}
	head := make([]byte, pageHeader+8)
	if _, err := f.ReadAt(head, int64(m.freelist)*int64(m.pageSize)); err != nil {
		return false
	}
	free := uint64(native.Uint16(head[10:]))
	if free == 0xffff { // more than that: see walker.freelist
		free = native.Uint64(head[pageHeader:])
	}
	return free > m.pages/4
}

// compact copies the file's contents into a new file and renames that over the old one. A process
// that is killed here leaves one of the two, undamaged.
func (db *DB) compact(s *session) (err error) {
	old, err := readMetas(s.file)
	if err != nil {
		return err
	}
	fresh := db.path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer func() { _ = os.Remove(fresh) }() // after the rename it does not exist
	to, err := bbolt.Open(fresh, 0o600, options())
	if err != nil {
		return err
	}
	err = bbolt.Compact(to, s.bolt, batch)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := readMetas(f)
	if err != nil {
		return err
	}
	// by is even: the parity of a transaction's number selects the meta page it is in.
	by := old.txid + old.txid%2
	if err := raise(f, m.pageSize, by); err != nil {
		return err
	}
	if err := os.Rename(fresh, db.path); err != nil {
		return err
	}
	now, err := stat(f)
	if err != nil {
		return err
	}
	return seal{now, m.txid + by, ""}.write(s.lock)
}

// raise adds by to the transaction numbers in both meta pages, so that they are later than those of
// the file that the rows were copied from. Otherwise a copy of that file would pass for the newer
// one.
func raise(f *os.File, pageSize uint32, by uint64) error {
	const txid, sum = pageHeader + 48, pageHeader + 56
	for id := range int64(2) {
		page, at := make([]byte, sum+8), id*int64(pageSize)
		if _, err := f.ReadAt(page, at); err != nil {
			return err
		}
		native.PutUint64(page[txid:], native.Uint64(page[txid:])+by)
		h := fnv.New64a()
		h.Write(page[pageHeader:sum])
		native.PutUint64(page[sum:], h.Sum64())
		if _, err := f.WriteAt(page, at); err != nil {
			return err
		}
	}
	_, err := readMetas(f)
	return err
}
