package boltstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

func TestOpenDoesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "lanyard")
	db := boltstore.Open(filepath.Join(dir, "lanyard.db"))
	if _, err := os.Stat(dir); err == nil {
		t.Error("Open made the directory")
	}
	mustNext(t, db, "a")
	for name, want := range map[string]os.FileMode{"": 0o755 | os.ModeDir, "lanyard.db": 0o600, "lanyard.db.lock": 0o600} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Mode() != want {
			t.Errorf("%q: %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

// dump returns every row of a bucket with a key that begins with prefix.
func dump(t *testing.T, db *boltstore.DB, bucket, prefix string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	if err := db.View(t.Context(), func(tx *boltstore.Tx) error {
		last := ""
		for k, v := range tx.Prefix(bucket, prefix) {
			if k <= last {
				t.Errorf("%q after %q", k, last)
			}
			rows[k], last = string(v), k
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestRows(t *testing.T) {
	db, path := tempDB(t)
	put := func(bucket string, rows map[string]string) {
		t.Helper()
		if err := db.Update(t.Context(), func(tx *boltstore.Tx) (err error) {
			for k, v := range rows {
				err = errors.Join(err, tx.Put(bucket, k, []byte(v)))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	a := map[string]string{"a\x001": "one", "a\x002": "", "ab": strings.Repeat("x", 10_000), "b": "\x00\xff"}
	put("a", a)
	put("a/b", map[string]string{"a": "other"})
	if diff := cmp.Diff(a, dump(t, db, "a", "")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"a\x001": "one", "a\x002": ""}, dump(t, db, "a", "a\x00")); diff != "" {
		t.Error(diff)
	}
	failed := errors.New("rolled back")
	if err := db.Update(t.Context(), func(tx *boltstore.Tx) error {
		if err := errors.Join(tx.Delete("a", "b"), tx.Delete("a", "not there"), tx.Delete("no bucket", "x"),
			tx.Put("new", "k", nil)); err != nil {
			t.Error(err)
		}
		if _, ok := tx.Get("a", "b"); ok {
			t.Error("a deleted row still exists")
		}
		if v, ok := tx.Get("new", "k"); !ok || len(v) != 0 {
			t.Errorf("an empty row: %q, %v", v, ok)
		}
		return failed
	}); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if len(dump(t, db, "a", "")) != len(a) || len(dump(t, db, "new", "")) != 0 {
		t.Error("an error did not roll back the changes")
	}
	if err := db.View(t.Context(), func(tx *boltstore.Tx) error { return tx.Put("a", "k", nil) }); err == nil {
		t.Error("Put succeeded in a View")
	}
	if err := db.Update(t.Context(), func(tx *boltstore.Tx) error {
		if tx.Put("a", "", nil) == nil || tx.Put("a", strings.Repeat("k", 40_000), nil) == nil {
			t.Error("Put accepted an empty key, or one that is too long")
		}
		return nil // the failed Puts do not fail the transaction
	}); err != nil {
		t.Error(err)
	}
	mustCheck(t, path)
}

func TestHold(t *testing.T) {
	db, path := tempDB(t)
	other := boltstore.Open(path)
	var wg sync.WaitGroup
	got := make(chan string, 1)
	if err := db.Hold(t.Context(), func() error {
		mustNext(t, db, "a")
		wg.Go(func() { got <- mustNext(t, other, "other").String() })
		// From within a Hold, also from a nested one, and from another goroutine.
		if err := db.Hold(t.Context(), func() error { mustNext(t, db, "b"); return nil }); err != nil {
			t.Error(err)
		}
		var inner sync.WaitGroup
		inner.Go(func() { mustNext(t, db, "c") })
		inner.Wait()
		select {
		case a := <-got:
			t.Errorf("another process got %s during the hold", a)
		case <-time.After(20 * time.Millisecond): // nothing shows that it waits
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if a := <-got; a != "10.32.0.4" {
		t.Errorf("the other got %s", a)
	}
	failed := errors.New("no")
	if err := db.Hold(t.Context(), func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	mustNext(t, other, "d")
}

// TestPanicIsPassedOn checks that a bug of the caller's is not taken for damage, for which the
// caller would move an undamaged database aside.
func TestPanicIsPassedOn(t *testing.T) {
	db, path := tempDB(t)
	mustNext(t, db, "a")
	for range 2 {
		func() {
			defer func() {
				if r := recover(); r == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.Update(t.Context(), func(tx *boltstore.Tx) error {
				var none *ipam.Lease
				return tx.Put("a", none.Name, nil)
			})
		}()
	}
	mustNext(t, boltstore.Open(path), "b")
	mustNext(t, db, "c")
}

// edit changes the file as another program would.
func edit(t *testing.T, path string, f func(*bbolt.Tx) error) {
	t.Helper()
	b, err := bbolt.Open(path, 0o600, boltstore.Options())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Update(f), b.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherLayoutIsRefused(t *testing.T) {
	meta := []byte("boltstore")
	for what, c := range map[string]struct {
		change func(*bbolt.Tx) error
		words  []string
	}{
		"an earlier layout": {func(tx *bbolt.Tx) error { return tx.Bucket(meta).Put([]byte("layout"), []byte("3=3")) },
			[]string{`"3=3"`, `"5"`}},
		"a later layout": {func(tx *bbolt.Tx) error { return tx.Bucket(meta).Put([]byte("layout"), []byte("6")) },
			[]string{`"6"`, `"5"`}},
		"no layout":               {func(tx *bbolt.Tx) error { return tx.Bucket(meta).Delete([]byte("layout")) }, nil},
		"another program's bbolt": {func(tx *bbolt.Tx) error { return tx.DeleteBucket(meta) }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			db, path := tempDB(t)
			mustNext(t, db, "a")
			edit(t, path, c.change)
			before := mustRead(t, path)
			_, err := db.Next(t.Context(), poolName, pool12, lease("b"))
			if err == nil || errors.Is(err, ipam.ErrCorrupt) {
				t.Fatalf("got %v", err)
			}
			for _, word := range append(c.words, path, "another version") {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error %q lacks %s", err, word)
				}
			}
			if name, err := db.MoveAside(t.Context()); name != "" || err != nil {
				t.Errorf("moved to %q, %v", name, err)
			}
			if !bytes.Equal(mustRead(t, path), before) {
				t.Error("the file was changed")
			}
		})
	}
}
