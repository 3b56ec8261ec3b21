package record_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/verify"
)

// update runs f in a transaction of the database file.
func update(t *testing.T, db *boltstore.DB, f func(tx record.Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), func(tx *boltstore.Tx) error { return f(tx) }); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *boltstore.DB {
	t.Helper()
	db := boltstore.Open(filepath.Join(t.TempDir(), "lanyard.db"))
	update(t, db, record.MarkReady)
	return db
}

func attachment(container string, mac byte) hook.Attachment {
	return hook.Attachment{
		ID: record.NewID(), State: hook.Attached, Network: "web", MAC: ether.MAC{2, 0, 0, 0, 0, mac},
		Endpoint: verify.Endpoint{Trunk: 3}, Netns: hook.Netns{Boot: "b", Cookie: 1, Inode: 2},
		Containers: []hook.Container{{ID: container}},
	}
}

// lookups are the ways to find the record of a container on trunk 3.
func lookups(tx record.Tx, container string, mac byte) map[string][]hook.Attachment {
	found := map[string][]hook.Attachment{}
	add := func(name string, list []hook.Attachment, err error) {
		if err != nil {
			panic(err)
		}
		found[name] = list
	}
	list, err := record.ByContainer(tx, container)
	add("container", list, err)
	list, err = record.ByMAC(tx, 3, ether.MAC{2, 0, 0, 0, 0, mac})
	add("MAC", list, err)
	list, err = record.ByNetwork(tx, "web")
	add("network", list, err)
	list, err = record.ByNetns(tx, hook.Netns{Boot: "b", Cookie: 1, Inode: 2})
	add("namespace", list, err)
	return found
}

// TestIndexes checks that a record is found by all that it has, and by nothing that it had.
func TestIndexes(t *testing.T) {
	db, a := open(t), attachment("c1", 1)
	update(t, db, func(tx record.Tx) error { return record.Put(tx, &a) })
	update(t, db, func(tx record.Tx) error {
		for by, list := range lookups(tx, "c1", 1) {
			if len(list) != 1 || list[0].ID != a.ID {
				t.Errorf("by %s: %v", by, list)
			}
		}
		return nil
	})
	// c10 begins with c1, and is another container.
	a.Containers, a.MAC = []hook.Container{{ID: "c10"}}, ether.MAC{2, 0, 0, 0, 0, 9}
	update(t, db, func(tx record.Tx) error { return record.Put(tx, &a) })
	update(t, db, func(tx record.Tx) error {
		for by, list := range lookups(tx, "c1", 1) {
			if stays := by == "network" || by == "namespace"; (len(list) == 1) != stays {
				t.Errorf("after the change, by %s: %v", by, list)
			}
		}
		return record.Remove(tx, a.ID)
	})
	update(t, db, func(tx record.Tx) error {
		for by, list := range lookups(tx, "c10", 9) {
			if len(list) > 0 {
				t.Errorf("after the removal, by %s: %v", by, list)
			}
		}
		return record.Remove(tx, a.ID) // not an error
	})
}

// TestReplaceKeepsContainers checks that containers which joined after a record was read stay.
func TestReplaceKeepsContainers(t *testing.T) {
	db, a := open(t), attachment("c1", 1)
	update(t, db, func(tx record.Tx) error { return record.Put(tx, &a) })
	joined := a
	joined.Containers = append(slices.Clone(a.Containers), hook.Container{ID: "c2"})
	update(t, db, func(tx record.Tx) error { return record.Put(tx, &joined) })
	a.MTU = 1400
	update(t, db, func(tx record.Tx) error { return record.Replace(tx, &a) })
	update(t, db, func(tx record.Tx) error {
		row, err := record.Get(tx, a.ID)
		if len(row.Containers) != 2 || row.MTU != 1400 || len(a.Containers) != 2 {
			t.Errorf("the row is %+v", row)
		}
		return err
	})
}

// TestReplaceGone checks that a commit does not bring back a record that a sweep has removed or is
// removing: its resources may belong to another attachment by then.
func TestReplaceGone(t *testing.T) {
	db, a := open(t), attachment("c1", 1)
	update(t, db, func(tx record.Tx) error {
		if err := record.Replace(tx, &a); !errors.Is(err, hook.ErrGone) {
			t.Errorf("a missing record: %v", err)
		}
		sweeping := a
		sweeping.State = hook.Detaching
		return record.Put(tx, &sweeping)
	})
	update(t, db, func(tx record.Tx) error {
		if err := record.Replace(tx, &a); !errors.Is(err, hook.ErrGone) {
			t.Errorf("a record that is being removed: %v", err)
		}
		return nil
	})
}

// TestNotReady checks that a new database answers no question: its records are still in the kernel.
func TestNotReady(t *testing.T) {
	db := boltstore.Open(filepath.Join(t.TempDir(), "lanyard.db"))
	update(t, db, func(tx record.Tx) error {
		if _, err := record.ByContainer(tx, "c1"); !errors.Is(err, record.ErrNotReady) {
			t.Errorf("a new database: %v", err)
		}
		return record.MarkReady(tx)
	})
	update(t, db, func(tx record.Tx) error {
		list, err := record.ByContainer(tx, "c1")
		if len(list) > 0 || err != nil {
			t.Errorf("a database that is ready: %v, %v", list, err)
		}
		return nil
	})
}

// TestRemoving checks that the mark of a removal concerns one generation of a network.
func TestRemoving(t *testing.T) {
	db := open(t)
	update(t, db, func(tx record.Tx) error { return record.MarkRemoving(tx, "web", "1") })
	update(t, db, func(tx record.Tx) error {
		marks := []bool{
			record.IsRemoving(tx, "web", "1"), record.IsRemoving(tx, "web", "2"), record.IsRemoving(tx, "we", "1"),
		}
		if !slices.Equal(marks, []bool{true, false, false}) {
			t.Errorf("marks are %v", marks)
		}
		return record.UnmarkRemoving(tx, "web")
	})
	update(t, db, func(tx record.Tx) error {
		if record.IsRemoving(tx, "web", "1") {
			t.Error("the mark stays")
		}
		return nil
	})
}

// TestMACsWithAddrs checks that the index says which MACs have addresses, also after the record has
// got or lost them, and for a row that an earlier release wrote.
func TestMACsWithAddrs(t *testing.T) {
	db, a, bare := open(t), attachment("c1", 1), attachment("c2", 2)
	other := attachment("c3", 3)
	other.Endpoint.Trunk = 33 // its key begins with 3, too
	addrs := []netip.Prefix{netip.MustParsePrefix("192.168.50.2/24")}
	other.Addrs = addrs
	check := func(when string, want ...ether.MAC) {
		t.Helper()
		update(t, db, func(tx record.Tx) error {
			got, err := record.MACsWithAddrs(tx, 3)
			if list := slices.Collect(maps.Keys(got)); err != nil || !slices.Equal(list, want) {
				t.Errorf("%s: got %v (%v), want %v", when, list, err, want)
			}
			return nil
		})
	}
	put := func(a *hook.Attachment) {
		t.Helper()
		update(t, db, func(tx record.Tx) error { return record.Put(tx, a) })
	}
	put(&a)
	put(&bare)
	put(&other)
	check("without addresses")
	a.Addrs = addrs
	put(&a)
	check("with addresses", a.MAC)
	update(t, db, func(tx record.Tx) error { return empty(tx, "macs") })
	check("with the rows of an earlier release", a.MAC)
	update(t, db, func(tx record.Tx) error { return record.Remove(tx, a.ID) })
	check("removed")
}

// TestCountOwned checks that a user's attachments to a network are counted, and no others, also in
// rows that an earlier release wrote.
func TestCountOwned(t *testing.T) {
	db := open(t)
	for i, owner := range []uint32{0, 1000, 1000, 100} {
		a := attachment("c", byte(i))
		a.Owner = owner
		update(t, db, func(tx record.Tx) error { return record.Put(tx, &a) })
	}
	other := attachment("c", 9)
	other.Network, other.Owner = "web2", 1000
	update(t, db, func(tx record.Tx) error { return record.Put(tx, &other) })
	for range 2 {
		update(t, db, func(tx record.Tx) error {
			for uid, want := range map[uint32]int{0: 1, 1000: 2, 100: 1, 10: 0} {
				if n, err := record.CountOwned(tx, "web", uid); n != want || err != nil {
					t.Errorf("uid %d has %d attachments (%v), want %d", uid, n, err, want)
				}
			}
			return empty(tx, "networks")
		})
	}
}

// empty makes the rows of an index those of an earlier release.
func empty(tx record.Tx, bucket string) error {
	for k := range maps.Collect(tx.Prefix(bucket, "")) {
		if err := tx.Put(bucket, k, nil); err != nil {
			return err
		}
	}
	return nil
}
