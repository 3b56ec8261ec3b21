package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

const pageSize = 4096

// populated is a file with two pools and some rows: trees of several pages,
// buckets within others, free pages.
func populated(t *testing.T) (path string, image []byte) {
	t.Helper()
	db, path := tempDB(t)
	six := ipam.Pool{Subnet: netip.MustParsePrefix("fd11::/64")}
	if err := db.Hold(t.Context(), func() error {
		for i := range 60 {
			id := fmt.Sprint(i)
			mustNext(t, db, id)
			if _, err := db.Next(t.Context(), "six", six, lease(id)); err != nil {
				return err
			}
			if err := db.Update(t.Context(), func(tx *boltstore.Tx) error {
				return tx.Put("attachments", id, bytes.Repeat([]byte(id), 100))
			}); err != nil {
				return err
			}
		}
		return errors.Join(
			db.Release(t.Context(), poolName, lease("7").Owner, 24*time.Hour),
			db.Decline(t.Context(), poolName, netip.MustParseAddr("10.32.0.10"), lease("9").Owner, 24*time.Hour))
	}); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, image
}

// everything is all that can be read.
func everything(ctx context.Context, db *boltstore.DB) (all []any, err error) {
	for _, pool := range []string{poolName, "six"} {
		leases, lerr := db.Leases(ctx, pool)
		count, cerr := db.Count(ctx, pool)
		all, err = append(all, leases, count), errors.Join(err, lerr, cerr)
	}
	rows := map[string]string{}
	verr := db.View(ctx, func(tx *boltstore.Tx) error {
		for k, v := range tx.Prefix("attachments", "") {
			rows[k] = string(v)
		}
		return nil
	})
	return append(all, rows), errors.Join(err, verr)
}

// damages are what can befall a file.
func damages(image []byte) map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	all := map[string][]byte{}
	add := func(what string, at int, change func(b []byte) []byte) {
		all[fmt.Sprintf("%s at %d", what, at)] = change(bytes.Clone(image))
	}
	over := func(at int, with []byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], with); return b }
	}
	step := 1
	if testing.Short() {
		step = 10
	}
	for at := 0; at < len(image); at += 29 * step {
		add("a bit", at, func(b []byte) []byte { b[at] ^= 1 << rng.IntN(8); return b })
	}
	for at := 0; at < len(image); at += 253 * step {
		add("the end", at, func(b []byte) []byte { return b[:at] })
		for _, n := range []int{8, 64, 512, pageSize} {
			garbage := make([]byte, n)
			for i := range garbage {
				garbage[i] = byte(rng.Uint32())
			}
			add(fmt.Sprintf("%d zeros", n), at, over(at, make([]byte, n)))
			add(fmt.Sprintf("%d ones", n), at, over(at, bytes.Repeat([]byte{0xff}, n)))
			add(fmt.Sprintf("%d of anything", n), at, over(at, garbage))
		}
	}
	for at := 0; at < len(image); at += pageSize {
		from := rng.IntN(len(image)/pageSize) * pageSize
		add(fmt.Sprintf("page %d", from/pageSize), at, over(at, image[from:from+pageSize]))
		// A page that says it is the one that it replaces.
		add(fmt.Sprintf("page %d renamed", from/pageSize), at, func(b []byte) []byte {
			copy(b[at+8:at+pageSize], image[from+8:])
			return b
		})
	}
	// Every number of every page's head and first rows, made very large, to
	// find whoever believes one.
	for page := 0; page < len(image); page += pageSize {
		for at := page; at < page+96; at += 2 {
			add("a large number", at, over(at, []byte{0xff, 0x7f}))
		}
	}
	return all
}

// TestDamage: whatever has befallen the file, it is an error or made no
// difference. Nothing crashes, and nobody gets an address that another has.
func TestDamage(t *testing.T) {
	path, image := populated(t)
	want, err := everything(t.Context(), boltstore.Open(path))
	if err != nil {
		t.Fatal(err)
	}
	found, harmless := 0, 0
	for what, damaged := range damages(image) {
		if err := errors.Join(os.WriteFile(path, damaged, 0o600), os.RemoveAll(path+".lock")); err != nil {
			t.Fatal(err)
		}
		db := boltstore.Open(path)
		got, err := everything(t.Context(), db)
		switch {
		case err == nil:
			harmless++
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Fatalf("%s: other rows, and no error:\n%s", what, diff)
			}
			mustStillClaim(t, db, what, got[0].([]ipam.Lease))
		case errors.Is(err, ipam.ErrCorrupt) && bytes.Contains([]byte(err.Error()), []byte(path)):
			found++
			if _, err := db.Next(t.Context(), poolName, pool12, lease("new")); !errors.Is(err, ipam.ErrCorrupt) {
				t.Fatalf("%s: a claim gave %v", what, err)
			}
		default:
			t.Fatalf("%s: %v", what, err)
		}
	}
	t.Logf("%d damages: %d found, %d in bytes that mean nothing", found+harmless, found, harmless)
}

func mustStillClaim(t *testing.T, db *boltstore.DB, what string, leases []ipam.Lease) {
	t.Helper()
	a, err := db.Next(t.Context(), poolName, pool12, lease("new"))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, l := range leases {
		if l.Addr == a {
			t.Fatalf("%s: %s was given out twice", what, a)
		}
	}
}

// touch makes sure that a change is seen as one, however coarse the clock of
// the file system is.
func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
}

func TestOldCopyIsRefused(t *testing.T) {
	db, path := tempDB(t)
	mustNext(t, db, "a")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mustNext(t, db, "b")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, path)
	if a, err := db.Next(t.Context(), poolName, pool12, lease("c")); !errors.Is(err, ipam.ErrCorrupt) {
		t.Fatalf("got %s, %v; b has that", a, err)
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

// TestContradictions are trees that bbolt has nothing against.
func TestContradictions(t *testing.T) {
	in := func(tx *bbolt.Tx, bucket string) *bbolt.Bucket {
		return tx.Bucket([]byte("pools")).Bucket([]byte(poolName)).Bucket([]byte(bucket))
	}
	first := func(b *bbolt.Bucket) []byte { k, _ := b.Cursor().First(); return bytes.Clone(k) }
	drop := func(bucket string) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { b := in(tx, bucket); return b.Delete(first(b)) }
	}
	for what, change := range map[string]func(*bbolt.Tx) error{
		"a lease is missing":  drop("leases"),
		"bits are missing":    drop("blocks"),
		"an owner is missing": drop("owners"),
		"an end is missing":   drop("ends"),
		"a bucket is missing": func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("pools")).Bucket([]byte(poolName)).DeleteBucket([]byte("ends"))
		},
		"a foreign bucket":     func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("poolz")); return err },
		"no layout":            func(tx *bbolt.Tx) error { return tx.Bucket([]byte("boltstore")).Delete([]byte("layout")) },
		"the count is another": func(tx *bbolt.Tx) error { return in(tx, "state").Put([]byte("counts"), []byte(`{"held":1}`)) },
		"the count is none":    func(tx *bbolt.Tx) error { return in(tx, "state").Put([]byte("counts"), []byte(`{`)) },
		"a bit too many": func(tx *bbolt.Tx) error {
			b := in(tx, "blocks")
			k := first(b)
			v := bytes.Clone(b.Get(k))
			v[300] = 1
			return b.Put(k, v)
		},
		"a lease of another address": func(tx *bbolt.Tx) error {
			b := in(tx, "leases")
			return b.Put([]byte{10, 32, 0, 99}, bytes.Clone(b.Get(first(b))))
		},
		"another's rows": func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rows/attachments")).Put([]byte("1"), []byte("without a checksum"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			path, _ := populated(t)
			edit(t, path, change)
			touch(t, path)
			if _, err := everything(t.Context(), boltstore.Open(path)); !errors.Is(err, ipam.ErrCorrupt) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

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
	path, image := populated(t)
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
	if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, image) {
		t.Errorf("what was moved aside is not what was damaged; %v", err)
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

// TestCutOffMeanwhile: the file shrinks in the middle of a visit, and the
// kernel answers a read of the mapping with SIGBUS.
func TestCutOffMeanwhile(t *testing.T) {
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
	// Nothing is left that would keep others, or this process, out.
	if name, err := boltstore.Open(path).MoveAside(t.Context()); name == "" || err != nil {
		t.Fatalf("moved to %q, %v", name, err)
	}
	mustNext(t, db, "new")
}
