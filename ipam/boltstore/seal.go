package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
)

// bbolt goes back to the older of its two meta pages where the newer is bad,
// without a word, and believes every number of every other page. So a file is
// read through, page by page and row by row, before it is believed, and a seal
// in the lock file says what that gave: for as long as the file is as it was
// then by what stat(2) says, nobody reads it again. Whoever writes, and is not
// killed before he has closed the file, seals it anew.
type seal struct {
	fileStat
	txid   uint64 // the last transaction
	damage string // what is wrong with the file; "" if it is whole
}

type fileStat struct {
	ino          uint64
	size         int64
	mtime, ctime int64 // ns
}

func stat(f *os.File) (s fileStat, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return s, fmt.Errorf("stat %q: %w", f.Name(), err)
	}
	return fileStat{st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

const sealFormat = "%d %d %d %d %d %q\n"

// readSeal gives the zero seal where there is none that can be read.
func readSeal(lock *os.File) (s seal) {
	b := make([]byte, 4096)
	n, _ := lock.ReadAt(b, 0)
	if _, err := fmt.Sscanf(string(b[:n]), sealFormat, &s.ino, &s.size, &s.mtime, &s.ctime, &s.txid, &s.damage); err != nil {
		return seal{}
	}
	return s
}

// write does without a truncation: what is left of a longer seal comes after
// the end of the line.
func (s seal) write(lock *os.File) error {
	_, err := lock.WriteAt(fmt.Appendf(nil, sealFormat, s.ino, s.size, s.mtime, s.ctime, s.txid, s.damage), 0)
	return err
}

// trust says what is wrong with the file, or nil.
func (db *DB) trust(lock, f *os.File) error {
	sealed := readSeal(lock)
	now, err := stat(f)
	if err != nil {
		return err
	}
	if now == sealed.fileStat {
		if sealed.damage != "" {
			return db.corrupt(errors.New(sealed.damage))
		}
		return nil
	}
	txid, err := check(f, now.size)
	if err == nil && txid < sealed.txid {
		err = fmt.Errorf("it is an old copy: transaction %d, and %d was written", txid, sealed.txid)
	}
	if errors.Is(err, errLayout) {
		return fmt.Errorf("database %q: %w", db.path, err)
	}
	if err != nil {
		return db.condemn(lock, f, err)
	}
	// Without a seal the next visit takes longer, and nothing else is lost.
	_ = seal{now, txid, ""}.write(lock)
	return nil
}

// condemn seals a damaged file as that. It is for good: also where reading the
// file finds nothing, since it is rows that contradict each other, nobody may
// come to another verdict.
func (db *DB) condemn(lock, f *os.File, cause error) error {
	if now, err := stat(f); err == nil {
		why := cause.Error()
		_ = seal{now, readSeal(lock).txid, why[:min(len(why), 500)]}.write(lock)
	}
	return db.corrupt(cause)
}

func (db *DB) corrupt(cause error) error {
	return fmt.Errorf("%w: %q: %w", ipam.ErrCorrupt, db.path, cause)
}

// check reads the whole file and gives its last transaction.
func check(f io.ReaderAt, size int64) (txid uint64, err error) {
	m, err := readMetas(f)
	if err != nil {
		return 0, err
	}
	var a audit
	if err := walk(f, size, m, a.row); err != nil {
		return 0, err
	}
	return m.txid, a.end()
}
