package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
)

// A seal in the lock file records that a file was checked, and with what result. It is needed since
// bbolt silently goes back to the older meta page where the newer is bad, and believes every number
// of every other page. So a file is read completely, page by page and row by row, before it is
// used. For as long as stat(2) returns the same as then, no process reads it again. A process that
// writes seals the file again before it closes it, unless it is killed.
type seal struct {
	fileStat
	txid   uint64 // the last transaction
	damage string // what is wrong with the file; "" if it is undamaged
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

// readSeal returns the seal in the lock file, or the zero seal if it cannot be read.
func readSeal(lock *os.File) (s seal) {
	b := make([]byte, 4096)
	n, _ := lock.ReadAt(b, 0)
	if _, err := fmt.Sscanf(string(b[:n]), sealFormat, &s.ino, &s.size, &s.mtime, &s.ctime, &s.txid,
		&s.damage); err != nil {
		return seal{}
	}
	return s
}

// write does not truncate the file: the rest of a longer seal comes after the end of the line.
func (s seal) write(lock *os.File) error {
	_, err := lock.WriteAt(fmt.Appendf(nil, sealFormat, s.ino, s.size, s.mtime, s.ctime, s.txid, s.damage), 0)
	return err
}

// trust returns nil if the file is undamaged, by its seal or by reading it. Otherwise it returns an
// error that wraps ipam.ErrCorrupt or errLayout.
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
		err = fmt.Errorf("it is an old copy: its last transaction is %d, but %d was written", txid, sealed.txid)
	}
	if errors.Is(err, errLayout) {
		return fmt.Errorf("database %q: %w", db.path, err)
	}
	if err != nil {
		return db.condemn(lock, f, err)
	}
	// If this fails, the next visit reads the whole file again, and nothing else is lost.
	_ = seal{now, txid, ""}.write(lock)
	return nil
}

// condemn seals a file as damaged, permanently: no process may come to another verdict, even if it
// finds nothing when it reads the file, as with rows that contradict each other.
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

// check reads the whole file and returns the number of its last transaction.
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
