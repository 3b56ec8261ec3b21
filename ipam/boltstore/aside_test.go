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
	path, image, _ := populated(t)
	image[3*pageSize] ^= 1
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, path)
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

func TestMoveAsideNothing(t *testing.T) {
	db, _ := tempDB(t)
	for range 2 {
		if name, err := db.MoveAside(t.Context()); name != "" || err != nil {
			t.Fatalf("moved to %q, %v", name, err)
		}
		mustNext(t, db, "a")
	}
}
