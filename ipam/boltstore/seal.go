package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
)

// bbolt has no checksums but on its two meta pages, and where the newer of
// them is bad it goes back to the older one without a word: a lease that was
// given out is forgotten. So whoever has written leaves a seal in the lock
// file: what stat(2) says of the database, and its transaction. Whoever comes
// next trusts a file that is as it was sealed. Any other was touched by
// strangers, or by one of us who was killed: it is read through, page by page
// and row by row, before anything is believed.
type seal struct {
	ino          uint64
	size         int64
	mtime, ctime int64 // ns
	txid         uint64
}

func stat(f *os.File, txid uint64) (s seal, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return s, fmt.Errorf("stat %q: %w", f.Name(), err)
	}
	return seal{st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), txid}, nil
}

const sealFormat = "%d %d %d %d %d\n"

// readSeal gives the zero seal where there is none that can be read.
func readSeal(lock *os.File) (s seal) {
	b := make([]byte, 128)
	n, _ := lock.ReadAt(b, 0)
	if _, err := fmt.Sscanf(string(b[:n]), sealFormat, &s.ino, &s.size, &s.mtime, &s.ctime, &s.txid); err != nil {
		return seal{}
	}
	return s
}

func (s seal) write(lock *os.File) error {
	b := fmt.Sprintf(sealFormat, s.ino, s.size, s.mtime, s.ctime, s.txid)
	_, err := lock.WriteAt(append([]byte(b), make([]byte, 128-len(b))...), 0)
	return err
}

// trusted says whether the file is as it was sealed; if not, an error, or that
// it was read through and is whole.
func (db *DB) trusted(lock, f *os.File) (asSealed bool, err error) {
	sealed := readSeal(lock)
	now, err := stat(f, sealed.txid)
	if err != nil || now == sealed {
		return err == nil, err
	}
	txid, err := check(f, now.size)
	switch {
	case errors.Is(err, errLayout):
		return false, fmt.Errorf("database %q: %w", db.path, err)
	case err != nil:
		return false, db.corrupt(err)
	case txid < sealed.txid:
		return false, db.corrupt(fmt.Errorf("it is an old copy: transaction %d, and %d was written", txid, sealed.txid))
	}
	return false, nil
}

// isDamaged says whether the file is, also where it is as it was sealed: memory
// goes bad, too.
func (db *DB) isDamaged(lock, f *os.File) bool {
	now, err := stat(f, 0)
	if err != nil {
		return false
	}
	txid, err := check(f, now.size)
	return err != nil && !errors.Is(err, errLayout) || err == nil && txid < readSeal(lock).txid
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

func (db *DB) corrupt(cause error) error {
	return fmt.Errorf("%w: %q: %w", ipam.ErrCorrupt, db.path, cause)
}
