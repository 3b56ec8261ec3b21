package boltstore

import (
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
)

// A file of bbolt's never shrinks, and the list of its free pages is read by each
// visit and written by each transaction: where a pool of a million leases was, a
// claim would cost more than in that pool.
const (
	smallFile = 4 << 20  // bytes: such a list is read in no time
	batch     = 64 << 10 // bytes that a transaction copies

	// wasteEvery is how many transactions look once, where nothing was dropped: to
	// look costs a claim in a large file three reads.
	wasteEvery = 64
)

// wasteful says whether much of a file is free. What starts and ends of containers
// leave free, the next ones use: it takes the end of many at once.
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

// compact copies what is in the file into a new one, which takes its place. Whoever
// is killed here leaves one of the two, and it is whole.
func (db *DB) compact(s *session) (err error) {
	old, err := readMetas(s.file)
	if err != nil {
		return err
	}
	fresh := db.path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer func() { _ = os.Remove(fresh) }() // gone by then, if all went well
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
	// An even number: a transaction's tells which of the two pages it is in.
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

// raise makes a file's last transactions later ones than those that its rows come
// from. Otherwise a copy of the file as it was before would pass for the newer one.
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
