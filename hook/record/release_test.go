package record_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// TestReleases checks that releases come in the order in which they were queued, and that removing
// one twice removes no later one.
func TestReleases(t *testing.T) {
	db := open(t)
	at := boottime.Now()
	queue := func(container string, wantFirst bool) {
		t.Helper()
		update(t, db, func(tx record.Tx) error {
			first, err := record.QueueRelease(tx, record.Release{Attachment: attachment(container, 1), At: at})
			if first != wantFirst {
				t.Errorf("%s: first is %v", container, first)
			}
			return err
		})
	}
	list := func(n int) (list []record.Release) {
		t.Helper()
		update(t, db, func(tx record.Tx) (err error) {
			list, err = record.Releases(tx, n)
			return err
		})
		return list
	}
	remove := func(r record.Release) {
		t.Helper()
		update(t, db, func(tx record.Tx) error { return record.RemoveRelease(tx, r) })
	}
	for i := range 20 { // more than nine: the order is that of numbers, not of words
		queue(fmt.Sprint("c", i), i == 0)
	}
	if got := len(list(3)); got != 3 {
		t.Errorf("%d releases, want 3", got)
	}
	all := list(100)
	for i, r := range all {
		if got := r.Attachment.Containers[0].ID; got != fmt.Sprint("c", i) || r.At != at {
			t.Errorf("release %d is %+v", i, r)
		}
		remove(r)
	}
	queue("later", true)
	remove(all[0])
	remove(all[19])
	if left := list(100); len(left) != 1 || left[0].Attachment.Containers[0].ID != "later" {
		t.Errorf("left: %+v", left)
	}
}

// TestReleaseLeft checks what is left of a quarantine, with what has passed of it.
func TestReleaseLeft(t *testing.T) {
	at := boottime.Now()
	r := record.Release{Quarantine: 30 * time.Second, At: at}
	for after, want := range map[time.Duration]time.Duration{
		0: 30 * time.Second, 10 * time.Second: 20 * time.Second, time.Hour: 0,
	} {
		if got := r.Left(at.Add(after)); got != want {
			t.Errorf("after %s: %s, want %s", after, got, want)
		}
	}
}
