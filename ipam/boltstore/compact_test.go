package boltstore_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// TestShrinks removes a large pool. The file must be small again, still contain everything else,
// and be taken neither for damaged nor for an old copy.
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
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := os.ReadFile(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	if err := db.RemovePool(t.Context(), "large"); err != nil {
		t.Fatal(err)
	}
	if small := mustSize(t, path); large < 4<<20 || small > large/20 {
		t.Errorf("%d bytes with the pool, %d without", large, small)
	}
	if err := boltstore.Audit(path); err != nil {
		t.Error(err)
	}
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
	// With the earlier seal, as after a crash, the whole file is read and found undamaged.
	if err := os.WriteFile(path+".lock", sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	mustNext(t, db, "last")
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("the new file is still there: %v", err)
	}
	// The file of before the removal is still an old copy.
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Leases(t.Context(), poolName); !errors.Is(err, ipam.ErrCorrupt) ||
		!strings.Contains(err.Error(), "it is an old copy") {
		t.Errorf("the earlier file: %v", err)
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
