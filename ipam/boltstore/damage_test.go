package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
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

const pageSize = 4096

// populated is a file with two pools and some rows: trees of several pages,
// buckets within others, free pages. earlier is the file as it was before the
// last of them.
func populated(t *testing.T) (path string, image, earlier []byte) {
	t.Helper()
	db, path := tempDB(t)
	six := ipam.Pool{Subnet: netip.MustParsePrefix("fd11::/64")}
	if err := db.Hold(t.Context(), func() error {
		for i := range 60 {
			if i == 55 {
				earlier = mustRead(t, path)
			}
			id := fmt.Sprint(i)
			mustNext(t, db, id)
			if _, err := db.Next(t.Context(), "six", six, lease(id)); err != nil {
				return err
			}
			if err := db.Update(t.Context(), func(tx *boltstore.Tx) error {
				return errors.Join(tx.Put("attachments", id, bytes.Repeat([]byte(id), 100)), tx.Put("few", fmt.Sprint(i%5), []byte(id)))
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
	return path, mustRead(t, path), earlier
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everything is all that can be read.
func everything(ctx context.Context, db *boltstore.DB) (string, error) {
	var all strings.Builder
	err := db.Hold(ctx, func() (err error) {
		for _, pool := range []string{poolName, "six"} {
			leases, lerr := db.Leases(ctx, pool)
			count, cerr := db.Count(ctx, pool)
			fmt.Fprintln(&all, leases, count)
			err = errors.Join(err, lerr, cerr)
		}
		return errors.Join(err, db.View(ctx, func(tx *boltstore.Tx) error {
			for _, bucket := range []string{"attachments", "few"} {
				for k, v := range tx.Prefix(bucket, "") {
					fmt.Fprintf(&all, "%s %s\n", k, v)
				}
			}
			return nil
		}))
	})
	return all.String(), err
}

// damages are what can befall a file: each is what it is called, and the file.
func damages(image, earlier []byte, rng *rand.Rand) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		over := func(what string, at int, with []byte) bool {
			b := bytes.Clone(image)
			copy(b[at:], with)
			return yield(fmt.Sprintf("%s at %d", what, at), b)
		}
		step := 1
		if testing.Short() {
			step = 10
		}
		for at := rng.IntN(29); at < len(image); at += 29 * step {
			if !over("a bit", at, []byte{image[at] ^ 1<<rng.IntN(8)}) {
				return
			}
		}
		for at := rng.IntN(253); at < len(image); at += 253 * step {
			ok := yield(fmt.Sprint("the end at ", at), image[:at])
			for _, n := range []int{8, 64, 512, pageSize} {
				garbage := make([]byte, n)
				for i := range garbage {
					garbage[i] = byte(rng.Uint32())
				}
				ok = ok && over(fmt.Sprint(n, " zeros"), at, make([]byte, n)) &&
					over(fmt.Sprint(n, " ones"), at, bytes.Repeat([]byte{0xff}, n)) &&
					over(fmt.Sprint(n, " of anything"), at, garbage)
			}
			if !ok {
				return
			}
		}
		for at := 0; at < len(image); at += pageSize {
			from := rng.IntN(len(image)/pageSize) * pageSize
			ok := over(fmt.Sprint("page ", from/pageSize), at, image[from:from+pageSize]) &&
				// A page that says it is the one that it replaces.
				over(fmt.Sprint("page ", from/pageSize, " renamed"), at+8, image[from+8:from+pageSize]) &&
				// One that was not written, or came back.
				(at >= len(earlier) || over("the page as it was", at, earlier[at:at+pageSize]))
			for n := range min(100, image[at+10]) {
				ok = ok && over(fmt.Sprint(n, " rows of more"), at+10, []byte{n})
			}
			// Every number of the page's head and first rows, made very large,
			// to find whoever believes one.
			for i := at; i < at+96; i += 2 {
				ok = ok && over("a large number", i, []byte{0xff, 0x7f})
			}
			if !ok {
				return
			}
		}
	}
}

// TestDamage: whatever has befallen the file, it is an error or made no
// difference. Nothing crashes, and nobody gets an address that another has.
func TestDamage(t *testing.T) {
	path, image, earlier := populated(t)
	want, err := everything(t.Context(), boltstore.Open(path))
	if err != nil {
		t.Fatal(err)
	}
	taken := map[netip.Addr]bool{}
	for _, l := range mustLeases(t, boltstore.Open(path)) {
		taken[l.Addr] = true
	}
	seed := rand.Uint64()
	found, harmless := 0, 0
	for what, damaged := range damages(image, earlier, rand.New(rand.NewPCG(seed, 0))) {
		if err := errors.Join(os.WriteFile(path, damaged, 0o600), os.RemoveAll(path+".lock")); err != nil {
			t.Fatal(err)
		}
		db := boltstore.Open(path)
		got, err := everything(t.Context(), db)
		switch {
		case err == nil:
			harmless++
			if got != want {
				t.Fatalf("seed %d: %s: other rows, and no error:\n%s", seed, what, cmp.Diff(want, got))
			}
			if a, err := db.Next(t.Context(), poolName, pool12, lease("new")); err != nil || taken[a] {
				t.Fatalf("seed %d: %s: a claim gave %s, %v; that address is taken: %v", seed, what, a, err, taken[a])
			}
		case errors.Is(err, ipam.ErrCorrupt) && strings.Contains(err.Error(), path):
			found++
			if a, again := db.Next(t.Context(), poolName, pool12, lease("new")); !errors.Is(again, ipam.ErrCorrupt) {
				t.Fatalf("seed %d: %s: a claim gave %s, %v, after: %v", seed, what, a, again, err)
			}
		default:
			t.Fatalf("seed %d: %s: %v", seed, what, err)
		}
	}
	t.Logf("seed %d: %d damages: %d found, %d in bytes that mean nothing", seed, found+harmless, found, harmless)
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
	old := mustRead(t, path)
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

// TestForeignHands: trees that bbolt has nothing against, and that we did not
// write.
func TestForeignHands(t *testing.T) {
	in := func(tx *bbolt.Tx, bucket string) *bbolt.Bucket {
		return tx.Bucket([]byte("pool/" + poolName)).Bucket([]byte(bucket))
	}
	first := func(b *bbolt.Bucket) []byte { k, _ := b.Cursor().First(); return bytes.Clone(k) }
	drop := func(bucket string) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { b := in(tx, bucket); return b.Delete(first(b)) }
	}
	for what, change := range map[string]func(*bbolt.Tx) error{
		"a lease is missing":         drop("leases"),
		"bits are missing":           drop("blocks"),
		"an owner is missing":        drop("owners"),
		"an end is missing":          drop("ends"),
		"the cursor is missing":      func(tx *bbolt.Tx) error { return in(tx, "state").Delete([]byte("cursor")) },
		"an empty bucket is missing": func(tx *bbolt.Tx) error { return tx.Bucket([]byte("pool/six")).DeleteBucket([]byte("ends")) },
		"an empty bucket is another": func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("pool/six"))
			_, err := b.CreateBucket([]byte("en`s"))
			return errors.Join(err, b.DeleteBucket([]byte("ends")))
		},
		"a pool is missing":    func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("pool/six")) },
		"a foreign bucket":     func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("poolz")); return err },
		"a foreign key":        func(tx *bbolt.Tx) error { return tx.Bucket([]byte("boltstore")).Put([]byte("x"), []byte("x")) },
		"no layout":            func(tx *bbolt.Tx) error { return tx.Bucket([]byte("boltstore")).Delete([]byte("layout")) },
		"no sum":               func(tx *bbolt.Tx) error { return tx.Bucket([]byte("boltstore")).Delete([]byte("sum")) },
		"nothing of ours":      func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("boltstore")) },
		"the count is another": func(tx *bbolt.Tx) error { return in(tx, "state").Put([]byte("counts"), []byte(`{"held":1}`)) },
		"a row is missing":     func(tx *bbolt.Tx) error { return tx.Bucket([]byte("rows/few")).Delete([]byte("3")) },
		"a row is another": func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("rows/few")).Put([]byte("1"), []byte("who?"))
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

// TestContradictions are rows that contradict each other in a file that is
// whole otherwise. Whoever comes upon them says so for all: nobody goes on with
// the file, and it can be moved aside.
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
		{"a lease is another's", "leases", one.AsSlice(), `{"addr":"10.32.0.2"}`, next},
		{"a lease is none", "leases", one.AsSlice(), `{`, next},
		{"counts are none", "state", []byte("counts"), `{`, next},
		{"an owner of nothing", "owners", []byte(`"0""web50""eth0"xyz`), "x", release},
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

// TestCutOffMeanwhile: the file shrinks in the middle of a visit, and the
// kernel answers a read of the mapping with SIGBUS.
func TestCutOffMeanwhile(t *testing.T) {
	path, _, _ := populated(t)
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
