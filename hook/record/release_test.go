package record_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam/boottime"
	"github.com/lanyard-net/lanyard/verify"
)

// TestReleases checks that releases come in the order in which they were queued, and that removing
// one twice removes no later one.
func TestReleases(t *testing.T) {
	db := open(t)
	at := boottime.Now()
	queue := func(network string, wantFirst bool) {
		t.Helper()
		a := attachment("c1", 1)
		a.Network = network
		update(t, db, func(tx record.Tx) error {
			first, err := record.QueueRelease(tx, record.Release{Attachment: a, At: at})
			if first != wantFirst {
				t.Errorf("%s: first is %v", network, first)
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
		queue(fmt.Sprint("n", i), i == 0)
	}
	if got := len(list(3)); got != 3 {
		t.Errorf("%d releases, want 3", got)
	}
	all := list(100)
	for i, r := range all {
		if got := r.Attachment.Network; got != fmt.Sprint("n", i) || r.At != at {
			t.Errorf("release %d is %+v", i, r)
		}
		remove(r)
	}
	queue("later", true)
	remove(all[0])
	remove(all[19])
	if left := list(100); len(left) != 1 || left[0].Attachment.Network != "later" {
		t.Errorf("left: %+v", left)
	}
}

// TestReleaseIsSmall checks that a release has what is needed to deliver it, and is small, whatever the
// attachment's record had: while a store is out of reach, the queue grows.
func TestReleaseIsSmall(t *testing.T) {
	db := open(t)
	a := attachment("c1", 1)
	a.Interface, a.Leases, a.Pools = "eth0", network.LeasesEtcd, []string{"web/192.168.50.0/24"}
	a.Addrs = []netip.Prefix{netip.MustParsePrefix("192.168.50.9/24")}
	a.Pending = []netip.Addr{a.Addrs[0].Addr()}
	a.Verdict.Text = strings.Repeat("a long reason ", 100)
	a.Verdicts, a.Evidence = []verify.Verdict{a.Verdict, a.Verdict}, &verify.Evidence{VLANs: make([]verify.VLANSeen, 100)}
	update(t, db, func(tx record.Tx) error {
		_, err := record.QueueRelease(tx, record.Release{Attachment: a})
		return err
	})
	update(t, db, func(tx record.Tx) error {
		for _, row := range tx.Prefix("releases", "") {
			if len(row) > 1000 {
				t.Errorf("it has %d bytes: %s", len(row), row)
			}
		}
		list, err := record.Releases(tx, 1)
		got := list[0].Attachment
		if got.ID != a.ID || got.Network != a.Network || got.Interface != a.Interface || got.Leases != a.Leases ||
			!slices.Equal(got.Pools, a.Pools) || !slices.Equal(got.Addrs, a.Addrs) || !slices.Equal(got.Pending, a.Pending) {
			t.Errorf("the release has %+v", got)
		}
		return err
	})
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
