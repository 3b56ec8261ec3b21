package boltstore

import (
	"bytes"
	"iter"
	"time"

	"go.etcd.io/bbolt"
)

// Tx is one transaction over the rows of others than this package: opaque
// values in buckets, which need no making. Values are valid until it ends, and
// must not be changed.
type Tx struct {
	tx  *bbolt.Tx
	now time.Time
}

// rowsPrefix keeps the buckets of others apart from our own.
const rowsPrefix = "rows/"

func rows(bucket string) []byte { return []byte(rowsPrefix + bucket) }

// Get gives the value of a key, and whether it is there.
func (t *Tx) Get(bucket, key string) ([]byte, bool) {
	b := t.tx.Bucket(rows(bucket))
	if b == nil {
		return nil, false
	}
	row := b.Get([]byte(key))
	if row == nil {
		return nil, false
	}
	return mustOpen(bucket, []byte(key), row), true
}

// mustOpen panics over a row with a bad checksum; run makes an error of it.
func mustOpen(bucket string, key, row []byte) []byte {
	v, err := opened(bucket, key, row)
	if err != nil {
		panic(err)
	}
	return v
}

// Put sets the value of a key. Keys may not be empty.
func (t *Tx) Put(bucket, key string, value []byte) error {
	b, err := t.tx.CreateBucketIfNotExists(rows(bucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), summed(bucket, []byte(key), value))
}

// Delete deletes a key; an absent one is nil.
func (t *Tx) Delete(bucket, key string) error {
	b := t.tx.Bucket(rows(bucket))
	if b == nil {
		return nil
	}
	return b.Delete([]byte(key))
}

// Prefix gives the keys that begin with prefix, in order; with "", all.
// Nothing may be changed in the bucket meanwhile.
func (t *Tx) Prefix(bucket, prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		b := t.tx.Bucket(rows(bucket))
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if !yield(string(k), mustOpen(bucket, k, v)) {
				return
			}
		}
	}
}
