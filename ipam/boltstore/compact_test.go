package boltstore_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// TestShrinks removes a large pool. The file must be small again and still contain everything else.
func TestShrinks(t *testing.T) {
	db, path := tempDB(t)
	mustNext(t, db, "stays")
	if err := db.Update(t.Context(),
		func(tx *boltstore.Tx) error { return tx.Put("rows", "k", []byte("v")) }); err != nil {
		t.Fatal(err)
	}
	if err := boltstore.FillFast(t.Context(), db, "large", pool12, 40_000, 1); err != nil {
		t.Fatal(err)
	}
	large := mustSize(t, path)
	if err := db.RemovePool(t.Context(), "large"); err != nil {
		t.Fatal(err)
	}
	if small := mustSize(t, path); large < 4<<20 || small > large/20 {
		t.Errorf("%d bytes with the pool, %d without", large, small)
	}
	mustCheck(t, path)
	for i := range 3 {
		mustNext(t, db, fmt.Sprint("new", i))
	}
	if leases := mustLeases(t, db); len(leases) != 4 || leases[0].Owner != lease("stays").Owner {
		t.Errorf("leases are %+v", leases)
	}
	if err := db.View(t.Context(), func(tx *boltstore.Tx) error {
		if v, ok := tx.Get("rows", "k"); !ok || string(v) != "v" {
			t.Errorf("the row is %q, %v", v, ok)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("the new file is still there: %v", err)
	}
}

func mustSize(tb testing.TB, path string) int64 {
	tb.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return fi.Size()
}
