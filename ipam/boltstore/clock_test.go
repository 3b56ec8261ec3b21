package boltstore_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/testenv"
)

// claimAddr is the role of a process that claims the address name.
func claimAddr(db *boltstore.DB, name string) error {
	l := lease("2")
	l.Addr = netip.MustParseAddr(name)
	return db.Claim(context.Background(), poolName, l)
}

// TestClockSetBack checks that a declined address is free after its time, measured by the clock
// boottime: that of a process in a time namespace is a minute later than its wall clock says, as after
// the wall clock was set back by a minute. Leases have times of the wall clock.
func TestClockSetBack(t *testing.T) {
	db, path := tempDB(t)
	const left = 50 * time.Second
	a, end := mustNext(t, db, "1"), time.Now().Add(left)
	if err := db.Decline(t.Context(), poolName, a, lease("1").Owner, left); err != nil {
		t.Fatal(err)
	}
	if got := mustLeases(t, db); len(got) != 1 || got[0].Until.Sub(end).Abs() > time.Second {
		t.Errorf("leases %+v, want one until %s", got, end)
	}
	for _, shift := range []time.Duration{0, time.Minute} {
		c := command("claim address", path, a.String())
		c.Stderr = nil
		testenv.ShiftClock(t, c, shift)
		if out, err := c.Output(); (err == nil) != (shift > left) {
			t.Errorf("%s later: %v %s", shift, err, out)
		}
	}
}
