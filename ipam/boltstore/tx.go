package boltstore

import (
	"iter"
	"time"

	"go.etcd.io/bbolt"
)

// Tx is one transaction over the rows of others than this package: opaque
// values in buckets, which need no making. Values are valid until it ends, and
// must not be changed.
type Tx struct {
	tx   *bbolt.Tx
	now  time.Time
	sum  uint64 // by how much the file's is another
	drop bool   // a table was dropped
}

// rowsPrefix keeps the buckets of others apart from our own.
const rowsPrefix = "rows/"

func (t *Tx) rows(bucket string) table { return t.root().table(rowsPrefix + bucket) }

// Get gives the value of a key, and whether it is there.
func (t *Tx) Get(bucket, key string) ([]byte, bool) {
	v := t.rows(bucket).get([]byte(key))
	return v, v != nil
}

// Put sets the value of a key. Keys may not be empty.
func (t *Tx) Put(bucket, key string, value []byte) error {
	b, err := t.root().make(rowsPrefix + bucket)
	if err != nil {
		return err
	}
	return b.put([]byte(key), append([]byte{}, value...)) // no value is one, too
}

// Delete deletes a key; an absent one is nil.
func (t *Tx) Delete(bucket, key string) error {
	return t.rows(bucket).delete([]byte(key))
}

// Prefix gives the keys that begin with prefix, in order; with "", all.
// Nothing may be changed in the bucket meanwhile.
func (t *Tx) Prefix(bucket, prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range t.rows(bucket).prefix([]byte(prefix)) {
			if !yield(string(k), v) {
				return
			}
		}
	}
}
