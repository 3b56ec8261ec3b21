//go:build !vm

package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
)

const pool = "web/192.168.50.0/24"

// shortest is a configuration with the shortest time to live.
func shortest(e *testenv.Etcd) etcdstore.Config {
	return etcdstore.Config{Endpoints: []string{e.Endpoint}, TTL: "2s"}
}

// lease is the lease of an address for an attachment.
func lease(attachment, addr string) ipam.Lease {
	return ipam.Lease{Addr: netip.MustParseAddr(addr), Name: "c" + attachment,
		Owner: ipam.Owner{Attachment: attachment, Network: "web", Interface: "eth0"}}
}

func mustClaim(t *testing.T, s ipam.Store, l ipam.Lease) {
	t.Helper()
	if err := s.Claim(t.Context(), pool, l); err != nil {
		t.Fatal(err)
	}
}

// holders returns the hosts of a pool's held addresses, by address.
func holders(t *testing.T, s ipam.Store) map[string]string {
	t.Helper()
	list, err := s.Leases(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, l := range list {
		all[l.Addr.String()] = l.Host
	}
	return all
}

// TestHostGone checks that the addresses of a host that is gone are free after its time to live, and
// that the host learns which of them others have before it can claim any.
func TestHostGone(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, b := mustOpen(t, shortest(e), "a"), mustOpen(t, shortest(e), "b")
	stop := keep(t, a, nothing)
	keep(t, b, nothing)
	for _, l := range []ipam.Lease{lease("1", "192.168.50.9"), lease("2", "192.168.50.10"), lease("3", "192.168.50.11")} {
		mustClaim(t, a, l)
	}
	err := b.Claim(t.Context(), pool, lease("4", "192.168.50.9"))
	if !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), `"c1" (attachment 1) on host "a"`) {
		t.Errorf("a claim of an address of another host: %v", err)
	}
	stop()
	testenv.Eventually(t, "the address of a host that is gone", func() error {
		return b.Claim(t.Context(), pool, lease("4", "192.168.50.9"))
	})
	if err := a.Claim(t.Context(), pool, lease("5", "192.168.50.12")); !errors.Is(err, ipam.ErrNoSession) {
		t.Errorf("a claim without a session: %v", err)
	}
	if err := a.Release(t.Context(), pool, lease("3", "192.168.50.11").Owner, time.Minute); err != nil {
		t.Errorf("a release without a session: %v", err)
	}
	renewed := false
	keep(t, a, func(ctx context.Context, s ipam.Shared) error {
		if renewed {
			return nil
		}
		renewed = true
		soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if err := a.Claim(soon, pool, lease("5", "192.168.50.12")); !errors.Is(err, ipam.ErrNoSession) {
			t.Errorf("a claim before the host has renewed: %v", err)
		}
		if err := s.Claim(ctx, pool, lease("1", "192.168.50.9")); !errors.Is(err, ipam.ErrTaken) {
			t.Errorf("the renewal of an address that another host has got: %v", err)
		}
		return s.Claim(ctx, pool, lease("2", "192.168.50.10"))
	})
	mustClaim(t, a, lease("5", "192.168.50.12"))
	want := map[string]string{"192.168.50.9": "b", "192.168.50.10": "a", "192.168.50.12": "a"}
	if got := holders(t, a); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("holders %v, want %v", got, want)
	}
}

// TestServiceRestarts checks that a service which ends and begins again within the time to live
// keeps the session, and all leases.
func TestServiceRestarts(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a := mustOpen(t, shortest(e), "a")
	stop := keep(t, a, nothing)
	mustClaim(t, a, lease("1", "192.168.50.9"))
	stop()
	again := mustOpen(t, shortest(e), "a")
	keep(t, again, nothing)
	<-time.After(3 * time.Second) // longer than the time to live
	if got := holders(t, again); got["192.168.50.9"] != "a" {
		t.Errorf("holders: %v", got)
	}
	mustClaim(t, a, lease("1", "192.168.50.9"))
}

// TestBeginsAgain checks that attempts to begin a session use one etcd lease: those that fail leave no
// other, and what they have claimed stays claimed. A lease that is gone is noticed at once.
func TestBeginsAgain(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a := mustOpen(t, etcdstore.Config{Endpoints: []string{e.Endpoint}}, "a")
	attempt := 0
	keep(t, a, func(ctx context.Context, s ipam.Shared) error {
		attempt++
		if got := holders(t, a); (attempt == 2 || attempt == 3) && got["192.168.50.9"] != "a" {
			t.Errorf("attempt %d: the holders are %v", attempt, got)
		}
		if err := s.Claim(ctx, pool, lease("1", "192.168.50.9")); err != nil {
			return err
		}
		if ids := etcdLeases(e); len(ids) != 1 {
			t.Errorf("attempt %d: the etcd leases are %v", attempt, ids)
		}
		switch attempt {
		case 1, 2:
			return errors.New("the records cannot be read")
		case 3:
			e.Ctl("lease", "revoke", etcdLeases(e)[0])
			began := time.Now()
			err := s.Claim(ctx, pool, lease("2", "192.168.50.10"))
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "lease not found") || took > time.Second {
				t.Errorf("a claim without the etcd lease: %v after %s", err, took)
			}
			return err
		}
		return nil
	})
	if ids := etcdLeases(e); len(ids) != 1 {
		t.Errorf("the etcd leases are %v", ids)
	}
}

// etcdLeases returns the ids of all etcd leases.
func etcdLeases(e *testenv.Etcd) []string { return strings.Fields(e.Ctl("lease", "list"))[3:] }

// TestRenewalAwaitsNoSession checks that a regular renewal does not wait for a session, if the last one
// has just ended: the next one cannot begin before the renewal returns.
func TestRenewalAwaitsNoSession(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, took, renewals := mustOpen(t, shortest(e), "a"), make(chan time.Duration, 1), 0
	keep(t, a, func(ctx context.Context, s ipam.Shared) error {
		renewals++
		if renewals == 2 {
			e.Ctl("lease", "revoke", etcdLeases(e)[0])
			began := time.Now()
			err := s.Claim(ctx, pool, lease("1", "192.168.50.9"))
			took <- time.Since(began)
			return err
		}
		return nil
	})
	if d := <-took; d > time.Second {
		t.Errorf("the claim took %s", d)
	}
	testenv.Eventually(t, "a claim in the next session", func() error {
		return a.Claim(t.Context(), pool, lease("1", "192.168.50.9"))
	})
}

// TestClaimAwaitsSession checks that a claim of the process that keeps the session waits until the
// session has begun: the first container may come right after the service has started.
func TestClaimAwaitsSession(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, renewing := mustOpen(t, shortest(e), "a"), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		a.Keep(ctx, slog.New(slog.DiscardHandler), func(context.Context, ipam.Shared) error {
			close(renewing)
			<-time.After(time.Second)
			return nil
		})
	})
	<-renewing
	mustClaim(t, a, lease("1", "192.168.50.9"))
	cancel()
	wg.Wait()
}

// TestRestored checks that a cluster that was restored from a backup, without the last claims, is
// noticed: the host claims again what it uses, and no address is given until others had the time to.
func TestRestored(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a := mustOpen(t, shortest(e), "a")
	used := lease("1", "192.168.50.9")
	keep(t, a, func(ctx context.Context, s ipam.Shared) error {
		if _, err := s.Mine(ctx); err != nil && !errors.Is(err, ipam.ErrNoSession) {
			return err
		}
		return s.Claim(ctx, pool, used)
	})
	if err := a.Release(t.Context(), pool, used.Owner, 0); err != nil {
		t.Fatal(err)
	}
	file := e.Backup() // without the address
	mustClaim(t, a, used)
	e.Restore(file)
	err := a.Claim(t.Context(), pool, lease("2", "192.168.50.10"))
	if err == nil || !strings.Contains(err.Error(), "was restored from a backup: it has revision ") {
		t.Errorf("a claim after the restore: %v", err)
	}
	testenv.Eventually(t, "the address that the host uses", func() error {
		if got := holders(t, a); got["192.168.50.9"] != "a" || len(got) != 1 {
			return fmt.Errorf("the holders are %v", got)
		}
		return nil
	})
	testenv.Eventually(t, "a claim after the time to live", func() error {
		return a.Claim(t.Context(), pool, lease("2", "192.168.50.10"))
	})
}

// TestAnotherCluster checks that another cluster behind the same endpoint is noticed by its id: its
// revision is not lower, and it has all leases that this host has seen.
func TestAnotherCluster(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a := mustOpen(t, shortest(e), "a")
	keep(t, a, nothing)
	mustClaim(t, a, lease("1", "192.168.50.9"))
	e.Replace(e.Backup())
	err := a.Claim(t.Context(), pool, lease("2", "192.168.50.10"))
	if err == nil || !strings.Contains(err.Error(), "is another cluster than before: ") {
		t.Errorf("a claim in the other cluster: %v", err)
	}
	testenv.Eventually(t, "a claim after the time to live", func() error {
		return a.Claim(t.Context(), pool, lease("2", "192.168.50.10"))
	})
}

// TestClockAhead checks that an address that a host with a wrong clock has declined is not out for as long
// as that clock is ahead.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a, b := mustOpen(t, shortest(e), "a"), mustOpen(t, shortest(e), "b")
	a.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
	keep(t, a, nothing)
	keep(t, b, nothing)
	l := lease("1", "192.168.50.9")
	mustClaim(t, a, l)
	if err := a.Decline(t.Context(), pool, l.Addr, l.Owner, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	if c, err := b.Count(t.Context(), pool); err != nil || c.Declined != 0 {
		t.Errorf("counts %+v, %v", c, err)
	}
	mustClaim(t, b, lease("2", "192.168.50.9"))
}

// TestOutOfReach checks that claims and releases fail in one line within their time while etcd is
// killed or does not answer, and that a session goes on or begins again afterwards.
func TestOutOfReach(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a := mustOpen(t, shortest(e), "a")
	keep(t, a, func(ctx context.Context, s ipam.Shared) error {
		return s.Claim(ctx, pool, lease("1", "192.168.50.9"))
	})
	for what, fault := range map[string]struct{ begin, end func() }{
		"killed": {e.Kill, e.Start}, "paused": {e.Pause, e.Resume},
	} {
		fault.begin()
		for _, limit := range []time.Duration{100 * time.Millisecond, time.Minute} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			began := time.Now()
			err := a.Claim(ctx, pool, lease("2", "192.168.50.10"))
			if took := time.Since(began); err == nil || took > min(limit+time.Second, 6*time.Second) {
				t.Errorf("%s, limit %s: %v after %s", what, limit, err, took)
			} else if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), e.Endpoint) {
				t.Errorf("%s, limit %s: %q", what, limit, err)
			} else {
				t.Logf("%s, limit %s: %v", what, limit, err)
			}
			cancel()
		}
		fault.end()
		testenv.Eventually(t, "a claim after etcd was "+what, func() error {
			return a.Claim(t.Context(), pool, lease("2", "192.168.50.10"))
		})
		testenv.Eventually(t, "the first address after etcd was "+what, func() error { // its session may have ended
			if got := holders(t, a); got["192.168.50.9"] != "a" {
				return fmt.Errorf("the holders are %v", got)
			}
			return nil
		})
	}
}

// TestTidy checks that rows that have run out are removed from the cluster.
func TestTidy(t *testing.T) {
	t.Parallel()
	e := testenv.StartEtcd(t)
	a := mustOpen(t, shortest(e), "a")
	keep(t, a, nothing)
	for i := range 120 { // more than one transaction removes
		l := lease(fmt.Sprint(i), fmt.Sprint("192.168.50.", i+2))
		mustClaim(t, a, l)
		if err := a.Release(t.Context(), pool, l.Owner, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	mustClaim(t, a, lease("long", "192.168.50.200"))
	if err := a.Decline(t.Context(), pool, netip.MustParseAddr("192.168.50.200"), lease("long", "192.168.50.200").Owner,
		time.Hour); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "a tidy cluster", func() error {
		rows := strings.Fields(e.Ctl("get", "--prefix", "--keys-only", "/lanyard/idle/"))
		if len(rows) != 1 {
			return fmt.Errorf("%d rows are left", len(rows))
		}
		return nil
	})
}
