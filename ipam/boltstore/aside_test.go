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

// remake is a process that starts anew where it finds damage.
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

// TestMoveAsideOnce: of many who find the damage one moves it, and nobody
// moves what another has made in its place.
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
		t.Error("what was moved aside is not what was damaged")
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
