package boltstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"strconv"

	"go.etcd.io/bbolt"
)

// bbolt's pages have no checksums: a count of rows that is one less, or a page
// that is as it was yesterday, loses rows without a word. So the file keeps a
// sum over all its rows and buckets, whatever they mean: each write takes out
// what was there and adds what is, and whoever reads the whole file must come
// to the same sum.

// share is what a row adds to the sum; with no key and no value, what its
// bucket does. 64 bits of SHA-256, so that no two changes make up for each
// other.
func share(bucket string, key, value []byte) uint64 {
	b := make([]byte, 0, 512)
	b = append(binary.AppendUvarint(b, uint64(len(bucket))), bucket...)
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	b = append(b, value...)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:])
}

// within is the full name of a bucket in another. Quoted, no two of them are
// one, whatever a hostile name has in it.
func within(bucket, name string) string { return bucket + strconv.Quote(name) }

// table is a bucket whose changes go into the sum: all but that of meta.
type table struct {
	t    *Tx
	name string        // the full one
	b    *bbolt.Bucket // nil if there is none
}

// root is the file itself.
func (t *Tx) root() table { return table{t, "", t.tx.Cursor().Bucket()} }

func (b table) table(name string) table {
	return table{b.t, within(b.name, name), b.b.Bucket([]byte(name))}
}

// make makes the table if there is none. Here as below, what fails is not in
// the sum: the caller may have his reasons to go on.
func (b table) make(name string) (table, error) {
	t := b.table(name)
	if t.b != nil {
		return t, nil
	}
	var err error
	if t.b, err = b.b.CreateBucket([]byte(name)); err != nil {
		return t, err
	}
	b.t.sum += share(t.name, nil, nil)
	return t, nil
}

func (b table) get(key []byte) []byte {
	if b.b == nil {
		return nil
	}
	return b.b.Get(key)
}

// prefix gives the rows whose keys begin with prefix, in order. None may be
// changed meanwhile.
func (b table) prefix(prefix []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		if b.b == nil {
			return
		}
		c := b.b.Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

func (b table) put(key, value []byte) error { return b.swap(key, b.get(key), value) }

// swap is put where the caller has just read what is there, nil if nothing is: to
// find a row again costs as much as to find it.
func (b table) swap(key, old, value []byte) error {
	if err := b.b.Put(key, value); err != nil {
		return err
	}
	if old != nil {
		b.t.sum -= share(b.name, key, old)
	}
	b.t.sum += share(b.name, key, value)
	return nil
}

func (b table) delete(key []byte) error {
	old := b.get(key)
	if old == nil {
		return nil
	}
	if err := b.b.Delete(key); err != nil {
		return err
	}
	b.t.sum -= share(b.name, key, old)
	return nil
}

// drop deletes a table in it, with all that is in that.
func (b table) drop(name string) error {
	t := b.table(name)
	if t.b == nil {
		return nil
	}
	gone := t.total()
	if err := b.b.DeleteBucket([]byte(name)); err != nil {
		return err
	}
	b.t.sum -= gone
	b.t.drop = true
	return nil
}

// total is the share of a table with all that is in it.
func (b table) total() uint64 {
	sum := share(b.name, nil, nil)
	for k, v := range b.prefix(nil) {
		if v == nil { // a bucket
			sum += b.table(string(k)).total()
		} else {
			sum += share(b.name, k, v)
		}
	}
	return sum
}

// addUp brings the sum in the file up to date.
func (t *Tx) addUp() error {
	if t.sum == 0 {
		return nil
	}
	meta := t.tx.Bucket(bucketMeta)
	said, err := strconv.ParseUint(string(meta.Get(keySum)), 16, 64)
	if err != nil {
		return damaged("sum: %w", err)
	}
	return meta.Put(keySum, strconv.AppendUint(nil, said+t.sum, 16))
}

// audit adds up what is in a file. It looks at nothing but the sum: what a row
// means is for who reads it.
type audit struct {
	layout bool
	said   string
	sum    uint64
}

func (a *audit) row(bucket string, key, value []byte) error {
	switch {
	case bucket == "" && key == nil: // the end of the file
	case bucket != within("", string(bucketMeta)):
		a.sum += share(bucket, key, value)
	case key == nil:
	case string(key) == string(keyLayout):
		a.layout = true
		return sameLayout(value)
	case string(key) == string(keySum):
		a.said = string(value)
	default:
		return fmt.Errorf("bucket %s, key %q: not ours", bucket, key)
	}
	return nil
}

// end is for what only the end of the file tells.
func (a *audit) end() error {
	if sum := strconv.FormatUint(a.sum, 16); !a.layout || sum != a.said {
		return fmt.Errorf("what is in it comes to %q, and %q was written", sum, a.said)
	}
	return nil
}
