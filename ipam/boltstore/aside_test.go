package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// remake is the role of a process that moves a damaged file aside and claims from a new one.
func remake(db *boltstore.DB, name string) error {
	err := claimOnce(db, name)
	if !errors.Is(err, ipam.ErrCorrupt) {
		return err
	}
	if _, err := db.MoveAside(context.Background()); err != nil {
		return err
	}
	return claimOnce(db, name)
}

// TestMoveAsideOnce checks that one of many processes that find the damage moves the file, and that
// none moves the file that another has created in its place.
func TestMoveAsideOnce(t *testing.T) {
	path, image := populated(t)
	image = image[:len(image)/2]
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			if err := command("remake", path, fmt.Sprint("new", i)).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(mustLeases(t, boltstore.Open(path))); n != processes {
		t.Errorf("%d leases, want %d", n, processes)
	}
	aside, err := filepath.Glob(path + ".corrupt-*")
	if err != nil || len(aside) != 1 {
		t.Fatalf("moved aside: %q, %v", aside, err)
	}
	if !bytes.Equal(mustRead(t, aside[0]), image) {
		t.Error("the file that was moved aside is not the damaged one")
	}
}

// TestMoveAsideLate has two processes find the damage. The second one must not move the file that
// the first one has created since, even if that one is damaged too: it has not found that yet.
func TestMoveAsideLate(t *testing.T) {
	path, image := populated(t)
	first, second := boltstore.Open(path), boltstore.Open(path)
	truncate := func() {
		t.Helper()
		if err := os.Truncate(path, int64(len(image)/2)); err != nil {
			t.Fatal(err)
		}
	}
	moves := func(db *boltstore.DB, want bool) {
		t.Helper()
		if name, err := db.MoveAside(t.Context()); (name != "") != want || err != nil {
			t.Fatalf("moved to %q, %v", name, err)
		}
	}
	truncate()
	for _, db := range []*boltstore.DB{first, second} {
		if err := claimOnce(db, "new"); !errors.Is(err, ipam.ErrCorrupt) {
			t.Fatalf("got %v", err)
		}
	}
	moves(first, true)
	moves(first, false)
	mustNext(t, first, "new")
	moves(second, false)
	if leases := mustLeases(t, second); len(leases) != 1 {
		t.Errorf("leases are %+v", leases)
	}
	if err := os.WriteFile(path, image[:len(image)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	moves(second, false)
	if err := claimOnce(second, "new"); !errors.Is(err, ipam.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	moves(second, true)
}

func TestMoveAsideNothing(t *testing.T) {
	db, _ := tempDB(t)
	for range 2 {
		if name, err := db.MoveAside(t.Context()); name != "" || err != nil {
			t.Fatalf("moved to %q, %v", name, err)
		}
		mustNext(t, db, "a")
	}
}
