//go:build !vm

package etcdstore_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
)

// half and otherHalf are parts of small.
var (
	small = ipam.Pool{Subnet: netip.MustParsePrefix("192.168.50.0/24"),
		Ranges: []netip.Prefix{netip.MustParsePrefix("192.168.50.16/28")}}
	half      = []netip.Prefix{netip.MustParsePrefix("192.168.50.16/29")}
	otherHalf = []netip.Prefix{netip.MustParsePrefix("192.168.50.24/29")}
)

// mustReserve reserves a share.
func mustReserve(t *testing.T, s *etcdstore.Store, ranges []netip.Prefix) ipam.Share {
	t.Helper()
	share, err := s.Reserve(t.Context(), pool, ranges)
	if err != nil {
		t.Fatal(err)
	}
	return share
}

// next leases the next address of small.
func next(t *testing.T, s ipam.Store, attachment string) (netip.Addr, error) {
	t.Helper()
	l := lease(attachment, "192.168.50.9")
	l.Addr = netip.Addr{}
	return s.Next(t.Context(), pool, small, l)
}

// TestShare checks that no other host gets an address of a host's share, until the host gives it back,
// and that the share outlives the host's session.
func TestShare(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, b := mustOpen(t, shortest(e), "a"), mustOpen(t, shortest(e), "b")
	stop := keep(t, a, nothing)
	keep(t, b, nothing)
	mustClaim(t, b, lease("before", "192.168.50.17"))
	mustClaim(t, a, lease("own", "192.168.50.18"))
	share := mustReserve(t, a, half)
	if want := []netip.Addr{netip.MustParseAddr("192.168.50.17")}; !slices.Equal(share.Except, want) ||
		share.Cluster == 0 || share.Revision == 0 {
		t.Errorf("the share is %+v", share)
	}
	mustClaim(t, b, lease("before", "192.168.50.17")) // it holds it
	if again := mustReserve(t, a, half); again.Revision < share.Revision || !slices.Equal(again.Except, share.Except) {
		t.Errorf("reserved again: %+v after %+v", again, share)
	}
	stop()
	testenv.Eventually(t, "the end of the session", func() error {
		if holders(t, b)["192.168.50.18"] != "" {
			return errors.New("it lasts")
		}
		return nil
	})
	for i := range 8 {
		if got, err := next(t, b, fmt.Sprint(i)); err != nil || half[0].Contains(got) {
			t.Errorf("another host gets %v, %v", got, err)
		}
	}
	_, err := next(t, b, "9")
	if !errors.Is(err, ipam.ErrPoolFull) || !strings.Contains(err.Error(), `, and the shares of other hosts ("a")`) {
		t.Errorf("a claim beside a share: %v", err)
	}
	err = b.Claim(t.Context(), pool, lease("9", "192.168.50.19"))
	if !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), `192.168.50.19 is reserved for host "a"`) {
		t.Errorf("a claim of an address of a share: %v", err)
	}
	keep(t, a, nothing)
	mustClaim(t, a, lease("own", "192.168.50.19"))
	if err := a.Release(t.Context(), pool, lease("own", "192.168.50.19").Owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err = next(t, b, "9"); !errors.Is(err, ipam.ErrPoolFull) { // a quarantined one of the share, too
		t.Errorf("a claim beside a share: %v", err)
	}
	got, err := a.Reserved(t.Context())
	if err != nil || len(got) != 1 || got[0].Pool != pool || !slices.Equal(got[0].Ranges, half) {
		t.Fatalf("reserved: %v, %v", got, err)
	}
	mustReserve(t, a, small.Ranges)
	if err := errors.Join(b.GiveBack(t.Context(), got[0]), a.GiveBack(t.Context(), got[0])); err != nil {
		t.Fatal(err)
	}
	if got, err = a.Reserved(t.Context()); err != nil || len(got) != 1 || !slices.Equal(got[0].Ranges, small.Ranges) {
		t.Fatalf("reserved again with other ranges, and then given back as before: %v, %v", got, err)
	}
	if err := a.GiveBack(t.Context(), got[0]); err != nil {
		t.Fatal(err)
	}
	if got, err := next(t, b, "9"); err != nil || !half[0].Contains(got) {
		t.Errorf("after the share was given back: %v, %v", got, err)
	}
	if pools, err := a.Reserved(t.Context()); err != nil || len(pools) != 0 {
		t.Errorf("reserved: %v, %v", pools, err)
	}
}

// TestShareOverlaps checks that two hosts cannot have one address in their shares, and that a host
// continues its share after a boot when its session has ended.
func TestShareOverlaps(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, b := mustOpen(t, shortest(e), "a"), mustOpen(t, shortest(e), "b")
	mustReserve(t, a, half)
	_, err := b.Reserve(t.Context(), pool, small.Ranges)
	if err == nil || !strings.Contains(err.Error(), `host "a" has the share 192.168.50.16/29 of pool `+pool+
		`, which overlaps this host's share 192.168.50.16/28: give each host another --host-slice`) {
		t.Errorf("overlapping shares: %v", err)
	}
	mustReserve(t, b, otherHalf)

	machine := func(id string) *etcdstore.Store {
		s, err := etcdstore.Open(shortest(e), etcdstore.Host{ID: id, Name: "c", Machine: "c"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	first, second := machine("boot 1"), machine("boot 2")
	stop := keep(t, first, nothing)
	third := []netip.Prefix{netip.MustParsePrefix("192.168.50.32/29")}
	mustReserve(t, first, third)
	if _, err = second.Reserve(t.Context(), pool, third); err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("a share of a host that runs: %v", err)
	}
	stop()
	testenv.Eventually(t, "the share after a boot", func() error {
		_, err := second.Reserve(t.Context(), pool, third)
		return err
	})
	got, err := second.Reserved(t.Context())
	if err != nil || len(got) != 1 {
		t.Fatalf("reserved: %v, %v", got, err)
	}
	if err := second.GiveBack(t.Context(), got[0]); err != nil {
		t.Error(err)
	}
}

// TestConfirm checks that an address that a host has chosen in its share while etcd was out of reach
// becomes an ordinary lease, whatever the store still has of it.
func TestConfirm(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, b := mustOpen(t, shortest(e), "a"), mustOpen(t, shortest(e), "b")
	keep(t, a, nothing)
	keep(t, b, nothing)
	mustReserve(t, a, half)
	confirm := func(l ipam.Lease) error { return a.Confirm(t.Context(), pool, l) }
	chosen := lease("1", "192.168.50.18")
	for range 2 {
		if err := confirm(chosen); err != nil {
			t.Error(err)
		}
	}
	// A claim with an unknown end, of an attachment that uses another address by now.
	mustClaim(t, a, lease("2", "192.168.50.19"))
	if err := confirm(lease("2", "192.168.50.20")); err != nil {
		t.Error(err)
	}
	mustClaim(t, a, lease("3", "192.168.50.21"))
	if err := confirm(lease("4", "192.168.50.21")); err != nil {
		t.Error(err)
	}
	declined := lease("5", "192.168.50.22")
	mustClaim(t, a, declined)
	if err := a.Decline(t.Context(), pool, declined.Addr, declined.Owner, time.Hour); err != nil {
		t.Error(err)
	}
	if err := confirm(lease("6", "192.168.50.22")); err != nil {
		t.Error(err)
	}
	mustClaim(t, b, lease("7", "192.168.50.30"))
	if err := confirm(lease("8", "192.168.50.30")); !errors.Is(err, ipam.ErrTaken) {
		t.Errorf("an address of another host: %v", err)
	}
	list, err := a.Leases(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range list {
		got[l.Addr.String()] = l.Owner.Attachment
	}
	want := map[string]string{"192.168.50.18": "1", "192.168.50.20": "2", "192.168.50.21": "4", "192.168.50.22": "6",
		"192.168.50.30": "7"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("leases of %v, want %v", got, want)
	}
	for _, l := range list { // the rows of owners are consistent
		in := a
		if l.Host == "b" {
			in = b
		}
		if err := in.Release(t.Context(), pool, l.Owner, 0); err != nil {
			t.Error(err)
		}
	}
	if rows := strings.Fields(e.Ctl("get", "--prefix", "--keys-only", "/lanyard/owner/")); len(rows) != 0 {
		t.Errorf("rows of owners: %v", rows)
	}
}

// TestShareRace checks that hosts that claim while another one reserves its share get no address of it
// that the host does not know of.
func TestShareRace(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, b := mustOpen(t, shortest(e), "a"), mustOpen(t, shortest(e), "b")
	keep(t, b, nothing)
	var claims sync.WaitGroup
	in := ipam.Pool{Subnet: netip.MustParsePrefix("192.168.50.0/24")}
	for i := range 4 {
		claims.Go(func() {
			for j := range 50 {
				l := ipam.Lease{Owner: ipam.Owner{Attachment: fmt.Sprint(i, j)}}
				if _, err := b.Next(t.Context(), pool, in, l); err != nil && !errors.Is(err, ipam.ErrPoolFull) {
					t.Error(err)
				}
			}
		})
	}
	testenv.Eventually(t, "the first claims", func() error {
		if len(holders(t, b)) == 0 {
			return errors.New("there are none")
		}
		return nil
	})
	share := mustReserve(t, a, []netip.Prefix{netip.MustParsePrefix("192.168.50.0/25")})
	claims.Wait()
	if len(share.Except) == 0 {
		t.Error("nothing was held before the share")
	}
	for addr := range holders(t, b) {
		if share.Contains(netip.MustParseAddr(addr)) {
			t.Errorf("another host has %s of %+v", addr, share)
		}
	}
}
