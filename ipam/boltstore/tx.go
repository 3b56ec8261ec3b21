package boltstore

import (
	"iter"
	"time"

	"go.etcd.io/bbolt"
)

// Tx is one transaction over the rows of other packages: opaque values in buckets, which need not
// be created first. Values are valid until the transaction ends, and must not be changed.
type Tx struct {
	tx   *bbolt.Tx
	now  time.Time
	sum  uint64 // difference to the sum in the file
	drop bool   // a table was dropped
}

// rowsPrefix separates the buckets of other packages from this package's own.
const rowsPrefix = "rows/"

func (t *Tx) rows(bucket string) table { return t.root().table(rowsPrefix + bucket) }

// Get returns the value of a key, and whether the key exists.
func (t *Tx) Get(bucket, key string) ([]byte, bool) {
	v := t.rows(bucket).get([]byte(key))
	return v, v != nil
}

// Put sets the value of a key. An empty key is an error.
func (t *Tx) Put(bucket, key string, value []byte) error {
	b, err := t.root().make(rowsPrefix + bucket)
	if err != nil {
		return err
	}
	return b.put([]byte(key), append([]byte{}, value...)) // an empty value is not nil: get returns nil for an absent key
}

// Delete deletes a key. It returns nil if the key does not exist.
func (t *Tx) Delete(bucket, key string) error {
	return t.rows(bucket).delete([]byte(key))
}

// Prefix iterates over the keys that begin with prefix, in order; over all if prefix is "". The
// bucket must not be changed during the iteration.
func (t *Tx) Prefix(bucket, prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range t.rows(bucket).prefix([]byte(prefix)) {
			if !yield(string(k), v) {
				return
			}
		}
	}
}
