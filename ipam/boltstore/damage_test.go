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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

const pageSize = boltstore.PageSize

// populated returns a file with two pools and some rows: trees of several pages, nested buckets,
// free pages.
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
				return errors.Join(tx.Put("attachments", id, bytes.Repeat([]byte(id), 100)),
					tx.Put("few", fmt.Sprint(i%5), []byte(id)))
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
	return path, mustRead(t, path)
}

func mustRead(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// everything returns all that can be read from a database, as text. Times are those of the file: by
// the wall clock, they would differ by nanoseconds the next time.
func everything(ctx context.Context, db *boltstore.DB) (string, error) {
	db.Now = func() time.Time { return time.Unix(0, int64(boottime.Now())) }
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

// unreadable yields damaged versions of a file that every visit must find, each with a description.
func unreadable(image []byte, rng *rand.Rand) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for at := 0; at < len(image); at += 1 + rng.IntN(194) {
			if !yield(fmt.Sprint("truncated at ", at), image[:at]) {
				return
			}
		}
		_ = yield("text", bytes.Repeat([]byte("garbage "), len(image)/8)) &&
			yield("zeros", make([]byte, len(image))) &&
			yield("random bytes", randomBytes(rng, len(image)))
	}
}

// overwritten yields versions of a file with one page overwritten. It leaves out the first two
// pages: bbolt can do without one of them.
func overwritten(image []byte, rng *rand.Rand) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for at := 2 * pageSize; at < len(image); at += pageSize {
			for _, page := range [][]byte{make([]byte, pageSize), randomBytes(rng, pageSize)} {
				damaged := slices.Concat(image[:at], page, image[at+pageSize:])
				if !yield(fmt.Sprintf("%x... at %d", page[:4], at), damaged) {
					return
				}
			}
		}
	}
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// TestDamage damages a file in many ways. Each must give an error or, in a page that a visit does
// not read, make no difference. Nothing may crash, and no address that is held may be leased again.
func TestDamage(t *testing.T) {
	path, image := populated(t)
	want, err := everything(t.Context(), boltstore.Open(path))
	if err != nil {
		t.Fatal(err)
	}
	taken := map[netip.Addr]bool{}
	for _, l := range mustLeases(t, boltstore.Open(path)) {
		taken[l.Addr] = true
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	// finds reports whether reading all leases and rows of a damaged file gives an error.
	finds := func(what string, damaged []byte) bool {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		db := boltstore.Open(path)
		got, err := everything(t.Context(), db)
		switch {
		case err == nil && got != want:
			t.Fatalf("seed %d: %s: different rows, and no error:\n%s", seed, what, cmp.Diff(want, got))
		case err != nil && (!errors.Is(err, ipam.ErrCorrupt) || !strings.Contains(err.Error(), path)):
			t.Fatalf("seed %d: %s: %v", seed, what, err)
		}
		a, cerr := db.Next(t.Context(), poolName, pool12, lease("new"))
		if taken[a] || cerr != nil && !errors.Is(cerr, ipam.ErrCorrupt) {
			t.Fatalf("seed %d: %s: a claim gave %s, %v; that address is taken: %v", seed, what, a, cerr, taken[a])
		}
		return err != nil
	}
	for what, damaged := range unreadable(image, rng) {
		if !finds(what, damaged) {
			t.Errorf("seed %d: %s: no error", seed, what)
		}
	}
	found, unused := 0, 0
	for what, damaged := range overwritten(image, rng) {
		if finds(what, damaged) {
			found++
		} else {
			unused++
		}
	}
	t.Logf("one page overwritten: %d found, %d not read", found, unused)
	if found == 0 {
		t.Error("no overwritten page was found")
	}
}
