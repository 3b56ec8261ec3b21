package boltstore

import (
	"bytes"
	"iter"
	"time"

	"go.etcd.io/bbolt"
)

// Tx is one transaction over the rows of others than this package: opaque
// values in buckets, which need no making. Values are valid until it ends.
type Tx struct {
	tx  *bbolt.Tx
	now time.Time
}

// rows keeps the buckets of others apart from our own.
func rows(bucket string) []byte { return []byte("rows/" + bucket) }

// Get gives the value of a key, and whether it is there.
func (t *Tx) Get(bucket, key string) ([]byte, bool) {
	b := t.tx.Bucket(rows(bucket))
	if b == nil {
		return nil, false
	}
	v := b.Get([]byte(key))
	return v, v != nil
}

// Put sets the value of a key. Keys may not be empty.
func (t *Tx) Put(bucket, key string, value []byte) error {
	b, err := t.tx.CreateBucketIfNotExists(rows(bucket))
	if err != nil {
		return err
	}
	if value == nil {
		value = []byte{} // bbolt gives back nil for "not there"
	}
	return b.Put([]byte(key), value)
}

// Delete deletes a key; an absent one is nil.
func (t *Tx) Delete(bucket, key string) error {
	b := t.tx.Bucket(rows(bucket))
	if b == nil {
		return nil
	}
	return b.Delete([]byte(key))
}

// Prefix gives the keys that begin with prefix, in order. Nothing may be
// changed in the bucket meanwhile.
func (t *Tx) Prefix(bucket, prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		b := t.tx.Bucket(rows(bucket))
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if !yield(string(k), v) {
				return
			}
		}
	}
}
