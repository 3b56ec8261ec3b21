package boltstore_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// TestDeletedDuringVisit deletes the database during a visit. What the visit writes to it is lost,
// as if the file had been deleted a moment later. The new file is valid, and the last visit to the
// old one does not affect it.
func TestDeletedDuringVisit(t *testing.T) {
	for what, files := range map[string][]string{"database": {""}, "both": {"", ".lock"}} {
		t.Run(what, func(t *testing.T) {
			db, path := tempDB(t)
			other := boltstore.Open(path)
			for i := range 3 {
				mustNext(t, db, string(rune('a'+i)))
			}
			if err := db.Hold(t.Context(), func() error {
				for _, suffix := range files {
					if err := os.Remove(path + suffix); err != nil {
						return err
					}
				}
				mustNext(t, db, "d")
				if len(files) == 2 { // without the lock file, another process can open a new database
					mustNext(t, other, "x")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			mustNext(t, other, "y")
			mustNext(t, db, "z")
			mustCheck(t, path)
			if n := len(mustLeases(t, db)); n != 1+len(files) {
				t.Errorf("%d leases", n)
			}
		})
	}
}

// TestLockDeletedDuringVisit deletes the lock file during a visit. No process may read the file
// while another writes it, or take it for damaged and move it aside.
func TestLockDeletedDuringVisit(t *testing.T) {
	db, path := tempDB(t)
	other := boltstore.Open(path)
	if err := db.Hold(t.Context(), func() error {
		mustNext(t, db, "a")
		if err := os.Remove(path + ".lock"); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, waited := other.Next(ctx, poolName, pool12, lease("b"))
		if !errors.Is(waited, context.DeadlineExceeded) {
			t.Errorf("got %v", waited)
		}
		_, err := other.Next(t.Context(), poolName, pool12, lease("b"))
		if err == nil || errors.Is(err, ipam.ErrCorrupt) || !strings.Contains(err.Error(), path+".lock") {
			t.Errorf("got %v", err)
		}
		if name, err := other.MoveAside(t.Context()); name != "" || err != nil {
			t.Errorf("moved to %q, %v", name, err)
		}
		mustNext(t, db, "c")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	mustNext(t, other, "d")
	mustCheck(t, path)
	if n := len(mustLeases(t, db)); n != 3 {
		t.Errorf("%d leases", n)
	}
}

// TestTruncatedDuringVisit truncates the file during a visit: the kernel answers a read of the
// mapping with SIGBUS.
func TestTruncatedDuringVisit(t *testing.T) {
	path, _ := populated(t)
	db := boltstore.Open(path)
	err := db.Hold(t.Context(), func() error {
		mustLeases(t, db)
		if err := os.Truncate(path, 2*pageSize); err != nil {
			t.Fatal(err)
		}
		_, err := db.Leases(t.Context(), poolName)
		_, again := db.Next(t.Context(), poolName, pool12, lease("new"))
		if !errors.Is(again, ipam.ErrCorrupt) {
			t.Errorf("again: %v", again)
		}
		return err
	})
	if !errors.Is(err, ipam.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	// No lock is left that would keep out this or another process.
	if err := claimOnce(boltstore.Open(path), "new"); !errors.Is(err, ipam.ErrCorrupt) {
		t.Fatalf("another process: %v", err)
	}
	if name, err := db.MoveAside(t.Context()); name == "" || err != nil {
		t.Fatalf("moved to %q, %v", name, err)
	}
	mustNext(t, db, "new")
}
