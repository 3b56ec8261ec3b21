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

// bbolt's pages have no checksums: a row count that is one too low, or an old version of a page,
// loses rows silently. So the file keeps a sum over all its rows and buckets, whatever they mean.
// Each write subtracts what was there and adds what is there now, and a process that reads the
// whole file must get the same sum.

// share returns what a row adds to the sum; with neither key nor value, what its bucket adds. It is
// 64 bits of SHA-256, so that no two changes cancel each other out.
func share(bucket string, key, value []byte) uint64 {
	b := make([]byte, 0, 512)
	b = append(binary.AppendUvarint(b, uint64(len(bucket))), bucket...)
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	b = append(b, value...)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:])
}

// within returns the full name of a bucket in another. The name is quoted, so that no two buckets
// have the same full name, whatever a hostile name contains.
func within(bucket, name string) string { return bucket + strconv.Quote(name) }

// table is a bucket that is part of the sum. All buckets are tables but bucketMeta.
type table struct {
	t    *Tx
	name string        // the full name, see within
	b    *bbolt.Bucket // nil if the bucket does not exist
}

// root returns the file's root bucket.
func (t *Tx) root() table { return table{t, "", t.tx.Cursor().Bucket()} }

func (b table) table(name string) table {
	return table{b.t, within(b.name, name), b.b.Bucket([]byte(name))}
}

// make returns a table, and creates it if it does not exist. Here and in the methods below, an
// operation that fails does not change the sum: the caller may ignore the error and continue.
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

// prefix iterates over the rows with keys that begin with prefix, in order. The table must not be
// changed during the iteration.
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

// swap is put for a caller that has just read the old value (nil if absent): finding the row again
// would cost as much as the first time.
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

// drop deletes a table of b, with everything in it.
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

// total returns the share of a table with everything in it.
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

// addUp updates the sum in the file.
func (t *Tx) addUp() error {
	if t.sum == 0 {
		return nil
	}
	meta := t.tx.Bucket(bucketMeta)
	stored, err := strconv.ParseUint(string(meta.Get(keySum)), 16, 64)
	if err != nil {
		return damaged("sum: %w", err)
	}
	return meta.Put(keySum, strconv.AppendUint(nil, stored+t.sum, 16))
}

// audit adds up the sum of a file's contents. It does not look at what a row means: the package's
// readers check that.
type audit struct {
	layout bool
	stored string
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
		a.stored = string(value)
	default:
		return fmt.Errorf("bucket %s, key %q: unknown", bucket, key)
	}
	return nil
}

// end checks what is known only at the end of the file.
func (a *audit) end() error {
	if sum := strconv.FormatUint(a.sum, 16); !a.layout || sum != a.stored {
		return fmt.Errorf("the sum of its contents is %q, and it records %q", sum, a.stored)
	}
	return nil
}
