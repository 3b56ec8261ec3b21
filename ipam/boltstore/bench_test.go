package boltstore_test

import (
	"fmt"
	"testing"

	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// sizes are numbers of leases with which a visit must cost about the same.
var sizes = []int{0, 1_000, 10_000, 50_000, 1_000_000}

// forSizes runs a benchmark over a file with n leases.
func forSizes(b *testing.B, run func(b *testing.B, db *boltstore.DB, path string)) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db, path := tempDB(b)
			if err := boltstore.Fill(b.Context(), db, poolName, pool12, n); err != nil {
				b.Fatal(err)
			}
			mustNext(b, db, "first")
			b.ResetTimer()
			run(b, db, path)
		})
	}
}

// BenchmarkClaim measures what a start pays: open the file, claim, close it.
func BenchmarkClaim(b *testing.B) {
	forSizes(b, func(b *testing.B, db *boltstore.DB, path string) {
		for i := range b.N {
			mustNext(b, db, fmt.Sprint("new", i))
			b.StopTimer()
			if err := db.Release(b.Context(), poolName, lease(fmt.Sprint("new", i)).Owner, 0); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

// BenchmarkLook measures opening the file, reading one row and closing it.
func BenchmarkLook(b *testing.B) {
	forSizes(b, func(b *testing.B, db *boltstore.DB, path string) {
		for range b.N {
			if _, err := db.Count(b.Context(), poolName); err != nil {
				b.Fatal(err)
			}
		}
	})
}
