package boltstore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

const pageSize = boltstore.PageSize

// populated returns a file with two pools and some rows: trees of several pages, nested buckets,
// free pages. earlier is the file before the last changes.
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
	return path, mustRead(t, path), earlier
}

func mustRead(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// everything returns all that can be read from a database, as text.
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

// damages yields damaged versions of a file, each with a description.
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
		for at := rng.IntN(97); at < len(image); at += 97 * step {
			if !over("a bit", at, []byte{image[at] ^ 1<<rng.IntN(8)}) {
				return
			}
		}
		for at := rng.IntN(997); at < len(image); at += 997 * step {
			ok := yield(fmt.Sprint("the end at ", at), image[:at])
			for _, n := range []int{8, 64, 512, pageSize} {
				garbage := make([]byte, n)
				for i := range garbage {
					garbage[i] = byte(rng.Uint32())
				}
				ok = ok && over(fmt.Sprint(n, " zeros"), at, make([]byte, n)) &&
					over(fmt.Sprint(n, " ones"), at, bytes.Repeat([]byte{0xff}, n)) &&
					over(fmt.Sprint(n, " random bytes"), at, garbage)
			}
			if !ok {
				return
			}
		}
		for at := 0; at < len(image); at += pageSize {
			from := rng.IntN(len(image)/pageSize) * pageSize
			ok := over(fmt.Sprint("page ", from/pageSize), at, image[from:from+pageSize]) &&
				// A page with the number of the page that it replaces.
				over(fmt.Sprint("page ", from/pageSize, " renamed"), at+8, image[from+8:from+pageSize]) &&
				// A page that was not written, or an old version of it.
				(at >= len(earlier) || over("the old page", at, earlier[at:at+pageSize]))
			for n := range min(100, image[at+10]) {
				ok = ok && over(fmt.Sprint(n, " rows instead of more"), at+10, []byte{n})
			}
			// Each number of the page's header and first rows, made very large: none may be used
			// unchecked.
			for i := at; i < at+96; i += 2 {
				ok = ok && over("a large number", i, []byte{0xff, 0x7f})
			}
			if !ok {
				return
			}
		}
	}
}

// TestDamage damages a file in many ways. Each must give an error or make no difference. Nothing
// may crash, and no address that is held may be leased again.
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
				t.Fatalf("seed %d: %s: different rows, and no error:\n%s", seed, what, cmp.Diff(want, got))
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
	t.Logf("seed %d: %d damages: %d found, %d in unused bytes", seed, found+harmless, found, harmless)
}

// FuzzAudit checks that no file crashes a reader or makes it allocate more memory than the file's
// size allows, even if the checksums of both meta pages are right.
func FuzzAudit(f *testing.F) {
	db, path := tempDB(f)
	for i := range 100 {
		mustNext(f, db, fmt.Sprint(i))
	}
	image := mustRead(f, path)
	f.Add(uint32(pageSize+16+40), []byte{0xff, 0xff, 0xff, 0x7f})
	f.Add(uint32(3*pageSize+8), []byte{2, 0, 1, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		b := bytes.Clone(image)
		copy(b[at%uint32(len(b)):], with)
		for meta := 16; meta < 2*pageSize; meta += pageSize {
			h := fnv.New64a()
			h.Write(b[meta : meta+56])
			binary.NativeEndian.PutUint64(b[meta+56:], h.Sum64())
		}
		_ = boltstore.AuditOf(bytes.NewReader(b), int64(len(b)))
	})
}
