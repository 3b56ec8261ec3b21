package boltstore

import (
	"bytes"
	"iter"
	"time"

	"go.etcd.io/bbolt"
)

// Tx is one transaction over the rows of other packages: opaque values in buckets, which need not
// be created first. Values are valid until the transaction ends, and must not be changed.
type Tx struct {
	tx   *bbolt.Tx
	now  time.Time
	wall time.Duration // from now to the time of the wall clock
}

// rowsPrefix separates the buckets of other packages from this package's own.
const rowsPrefix = "rows/"

// rows returns a bucket of another package, or nil if it does not exist.
func (t *Tx) rows(bucket string) *bbolt.Bucket { return t.tx.Bucket([]byte(rowsPrefix + bucket)) }

// Get returns the value of a key, and whether the key exists.
func (t *Tx) Get(bucket, key string) ([]byte, bool) {
	b := t.rows(bucket)
	if b == nil {
		return nil, false
	}
	v := b.Get([]byte(key))
	return v, v != nil
}

// Put sets the value of a key. An empty key is an error.
func (t *Tx) Put(bucket, key string, value []byte) error {
	b, err := t.tx.CreateBucketIfNotExists([]byte(rowsPrefix + bucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), append([]byte{}, value...)) // an empty value is not nil: Get returns nil for an absent key
}

// Delete deletes a key. It returns nil if the key does not exist.
func (t *Tx) Delete(bucket, key string) error {
	b := t.rows(bucket)
	if b == nil {
		return nil
	}
	return b.Delete([]byte(key))
}

// Prefix iterates over the keys that begin with prefix, in order; over all if prefix is "". The
// bucket must not be changed during the iteration.
func (t *Tx) Prefix(bucket, prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		b := t.rows(bucket)
		if b == nil {
			return
		}
		for k, v := range withPrefix(b, []byte(prefix)) {
			if !yield(string(k), v) {
				return
			}
		}
	}
}

// withPrefix iterates over the rows of a bucket with keys that begin with prefix, in order. The
// bucket must not be changed during the iteration.
func withPrefix(b *bbolt.Bucket, prefix []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		c := b.Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}
