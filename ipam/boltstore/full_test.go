package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// TestFullDisk checks that on a full disk nothing is half done and nothing is taken for damage, and
// that claims work again as soon as there is space.
func TestFullDisk(t *testing.T) {
	for _, fresh := range []string{"", "fresh"} {
		_, path := tempDB(t)
		c := command("full", path, fresh)
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
	}
}

// fullDisk is the role of a process with a small disk of its own. It fills the disk before the
// database is created if fresh is not "", otherwise afterwards.
func fullDisk(db *boltstore.DB, path, fresh string) error {
	ctx, dir := context.Background(), filepath.Dir(path)
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=512k"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	given := map[netip.Addr]bool{}
	// fill claims addresses until the disk is full.
	fill := func(times int) error {
		for i := range times {
			a, err := db.Next(ctx, poolName, pool12, lease(fmt.Sprint(len(given), "-", i)))
			if err != nil {
				return err
			}
			if given[a] {
				return fmt.Errorf("%s was given out twice", a)
			}
			given[a] = true
		}
		return nil
	}
	if fresh == "" {
		if err := fill(50); err != nil {
			return err
		}
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("fill the disk: got %w", err)
	}
	if err := fill(1000); !errors.Is(err, unix.ENOSPC) || errors.Is(err, ipam.ErrCorrupt) {
		return fmt.Errorf("claim with a full disk: got %w", err)
	}
	check := func() error {
		if name, err := db.MoveAside(ctx); name != "" || err != nil {
			return fmt.Errorf("moved to %q, %w", name, err)
		}
		leases, err := db.Leases(ctx, poolName)
		if len(leases) != len(given) {
			err = errors.Join(err, fmt.Errorf("%d leases, %d were given out", len(leases), len(given)))
		}
		for _, l := range leases {
			if !given[l.Addr] {
				err = errors.Join(err, fmt.Errorf("%s was not given out", l.Addr))
			}
		}
		return err
	}
	if fresh == "" {
		// Also within a visit that has already written something.
		if err := db.Hold(ctx, func() error {
			for range 3 {
				err := db.Update(ctx, func(tx *boltstore.Tx) error { return tx.Put("big", "k", make([]byte, 1<<20)) })
				if !errors.Is(err, unix.ENOSPC) {
					return fmt.Errorf("a big row: got %w", err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if err := check(); err != nil {
			return err
		}
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := fill(50); err != nil {
		return fmt.Errorf("claim with free space again: %w", err)
	}
	return errors.Join(check(), boltstore.Check(path))
}
