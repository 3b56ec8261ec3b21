package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// touch makes sure that a change is detected, however coarse the file system's clock is.
func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
}

func TestOldCopyIsRefused(t *testing.T) {
	db, path := tempDB(t)
	mustNext(t, db, "a")
	old := mustRead(t, path)
	mustNext(t, db, "b")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, path)
	if a, err := db.Next(t.Context(), poolName, pool12, lease("c")); !errors.Is(err, ipam.ErrCorrupt) {
		t.Fatalf("got %s, %v; b holds that address", a, err)
	}
	if name, err := db.MoveAside(t.Context()); name == "" || err != nil {
		t.Fatalf("moved to %q, %v", name, err)
	}
	mustNext(t, db, "d")
}

func TestTouchedButWholeIsTrusted(t *testing.T) {
	db, path := tempDB(t)
	mustNext(t, db, "a")
	touch(t, path)
	mustNext(t, db, "b")
}

// TestEditedFile checks files that are valid for bbolt, but that this package did not write.
func TestEditedFile(t *testing.T) {
	in := func(tx *bbolt.Tx, bucket string) *bbolt.Bucket {
		return tx.Bucket([]byte("pool/" + poolName)).Bucket([]byte(bucket))
	}
	meta := func(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket([]byte("boltstore")) }
	first := func(b *bbolt.Bucket) []byte { k, _ := b.Cursor().First(); return bytes.Clone(k) }
	drop := func(bucket string) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { b := in(tx, bucket); return b.Delete(first(b)) }
	}
	for what, change := range map[string]func(*bbolt.Tx) error{
		"a lease is missing":    drop("leases"),
		"bits are missing":      drop("blocks"),
		"an owner is missing":   drop("owners"),
		"an end is missing":     drop("ends"),
		"the cursor is missing": func(tx *bbolt.Tx) error { return in(tx, "state").Delete([]byte("cursor")) },
		"an empty bucket is missing": func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("pool/six")).DeleteBucket([]byte("ends"))
		},
		"an empty bucket has another name": func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("pool/six"))
			_, err := b.CreateBucket([]byte("en`s"))
			return errors.Join(err, b.DeleteBucket([]byte("ends")))
		},
		"a pool is missing": func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("pool/six")) },
		"an unknown bucket": func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("poolz")); return err },
		"an unknown key":    func(tx *bbolt.Tx) error { return meta(tx).Put([]byte("x"), []byte("x")) },
		"no layout":         func(tx *bbolt.Tx) error { return meta(tx).Delete([]byte("layout")) },
		"half a layout":     func(tx *bbolt.Tx) error { return meta(tx).Put([]byte("layout"), []byte("9=1")) },
		"no sum":            func(tx *bbolt.Tx) error { return meta(tx).Delete([]byte("sum")) },
		"no meta bucket":    func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("boltstore")) },
		"the count has changed": func(tx *bbolt.Tx) error {
			return in(tx, "state").Put([]byte("counts"), []byte(`{"held":1}`))
		},
		"a row is missing": func(tx *bbolt.Tx) error { return tx.Bucket([]byte("rows/few")).Delete([]byte("3")) },
		"a row has changed": func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rows/few")).Put([]byte("1"), []byte("changed"))
		},
		"a row is in another bucket": func(tx *bbolt.Tx) error {
			from, to := tx.Bucket([]byte("rows/few")), tx.Bucket([]byte("rows/attachments"))
			return errors.Join(to.Put([]byte("x"), bytes.Clone(from.Get([]byte("1")))), from.Delete([]byte("1")))
		},
	} {
		t.Run(what, func(t *testing.T) {
			path, _, _ := populated(t)
			edit(t, path, change)
			touch(t, path)
			if _, err := everything(t.Context(), boltstore.Open(path)); !errors.Is(err, ipam.ErrCorrupt) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// TestContradictions forges rows that contradict each other in a file that is otherwise valid. Once
// one process has found that, every process gets the error, and the file can be moved aside.
func TestContradictions(t *testing.T) {
	one := netip.MustParseAddr("10.32.0.1")
	next := func(db *boltstore.DB) error {
		l := lease("new")
		l.Addr = one
		_, err := db.Next(context.Background(), poolName, pool12, l)
		return err
	}
	release := func(db *boltstore.DB) error {
		return db.Release(context.Background(), poolName, lease("0").Owner, 0)
	}
	for _, c := range []struct {
		what, bucket string
		key          []byte
		value        string
		visit        func(*boltstore.DB) error
	}{
		{"a lease is missing", "leases", one.AsSlice(), "", release},
		{"bits are missing", "blocks", one.AsSlice()[:3], "", next},
		{"a lease has another address", "leases", one.AsSlice(), `{"addr":"10.32.0.2"}`, next},
		{"a lease cannot be read", "leases", one.AsSlice(), `{`, next},
		{"counts cannot be read", "state", []byte("counts"), `{`, next},
		{"an owner without an address", "owners", boltstore.OwnerKey(lease("0").Owner, []byte("xyz")), "x", release},
	} {
		t.Run(c.what, func(t *testing.T) {
			path, _, _ := populated(t)
			db := boltstore.Open(path)
			var value []byte
			if c.value != "" {
				value = []byte(c.value)
			}
			if err := boltstore.Forge(t.Context(), db, poolName, c.bucket, c.key, value); err != nil {
				t.Fatal(err)
			}
			mustAudit(t, path)
			for range 2 {
				if err := c.visit(db); !errors.Is(err, ipam.ErrCorrupt) {
					t.Fatalf("got %v", err)
				}
			}
			if _, err := boltstore.Open(path).Count(t.Context(), "six"); !errors.Is(err, ipam.ErrCorrupt) {
				t.Errorf("another visit: %v", err)
			}
			if name, err := db.MoveAside(t.Context()); name == "" || err != nil {
				t.Fatalf("moved to %q, %v", name, err)
			}
			if err := c.visit(db); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOwnersWithOneKey checks that an owner does not get the lease of another owner with the same
// key.
func TestOwnersWithOneKey(t *testing.T) {
	db, path := tempDB(t)
	mine, other := mustNext(t, db, "mine"), mustNext(t, db, "other")
	key := boltstore.OwnerKey(lease("mine").Owner, other.AsSlice())
	if err := boltstore.Forge(t.Context(), db, poolName, "owners", key, []byte{}); err != nil {
		t.Fatal(err)
	}
	if a := mustNext(t, db, "mine"); a != mine {
		t.Errorf("mine has %s, and had %s", a, mine)
	}
	if err := db.Release(t.Context(), poolName, lease("mine").Owner, 0); err != nil {
		t.Fatal(err)
	}
	if leases := mustLeases(t, db); len(leases) != 1 || leases[0].Addr != other {
		t.Errorf("left are %+v", leases)
	}
	mustAudit(t, path)
}
