package boltstore_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// TestContradictions forges rows that contradict each other in a file that is otherwise valid. The
// process that finds that can move the file aside.
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
		{"a lease has another address", "leases", one.AsSlice(), `{"addr":"10.32.0.2"}`, next},
		{"a lease cannot be read", "leases", one.AsSlice(), `{`, next},
		{"counts cannot be read", "state", []byte("counts"), `{`, next},
		{"an end without an address", "ends", []byte{0}, "x", next},
		{"an owner without an address", "owners", boltstore.OwnerKey(lease("0").Owner, []byte("xyz")), "x", release},
	} {
		t.Run(c.what, func(t *testing.T) {
			path, _ := populated(t)
			db := boltstore.Open(path)
			var value []byte
			if c.value != "" {
				value = []byte(c.value)
			}
			if err := boltstore.Forge(t.Context(), db, poolName, c.bucket, c.key, value); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := c.visit(db); !errors.Is(err, ipam.ErrCorrupt) {
					t.Fatalf("got %v", err)
				}
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

// TestOwnersWithOneKey checks that an owner does not get the lease of another owner with the same
// key.
func TestOwnersWithOneKey(t *testing.T) {
	db, _ := tempDB(t)
	mine, other := mustNext(t, db, "mine"), mustNext(t, db, "other")
	key := boltstore.OwnerKey(lease("mine").Owner, other.AsSlice())
	if err := boltstore.Forge(t.Context(), db, poolName, "owners", key, []byte{}); err != nil {
		t.Fatal(err)
	}
	if a := mustNext(t, db, "mine"); a != mine {
		t.Errorf("mine has %s, and had %s", a, mine)
	}
	if err := db.Release(t.Context(), poolName, lease("mine").Owner, 0); err != nil {
		t.Fatal(err)
	}
	if leases := mustLeases(t, db); len(leases) != 1 || leases[0].Addr != other {
		t.Errorf("left are %+v", leases)
	}
}
