package attach

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/verify"
)

// TestRenewals checks that lost leases do not delay healthy ones or each other, and that no lease is
// renewed twice at the same time.
func TestRenewals(t *testing.T) {
	var recs []hook.Attachment
	now := time.Now()
	for i := range 2*renewAtOnce + 2 {
		a := hook.Attachment{ID: verify.ID{byte(i)}, State: hook.Attached, DHCP: &dhcp.Lease{Renew: now, Expires: now}}
		if i > 0 {
			a.DHCP.Lost = "it ended"
		}
		recs = append(recs, a)
	}
	r := newRenewals()
	waiting := func() []hook.Attachment { return r.waiting(recs, r.inProgress()) }
	release, healthy := make(chan struct{}), make(chan struct{})
	for _, a := range slices.Backward(waiting()) {
		r.start(a, func() time.Duration {
			if a.DHCP.Lost == "" {
				close(healthy)
			}
			<-release
			return time.Nanosecond
		})
	}
	<-healthy
	due := waiting()
	if got, want := len(due), renewAtOnce+1; got != want {
		t.Fatalf("%d leases wait, want %d", got, want)
	}
	close(release)
	_, _ = r.lost.Wait(), r.healthy.Wait()
	if all := waiting(); len(all) != len(recs) || all[0].ID != due[0].ID {
		t.Errorf("%d leases wait, the first is %v; want %d, %v", len(all), all[0].ID, len(recs), due[0].ID)
	}
}

// TestRoutesOfLease checks which routes of a server an interface gets.
func TestRoutesOfLease(t *testing.T) {
	via := netip.MustParseAddr("192.168.50.1")
	lease := dhcp.Lease{}
	for _, dst := range []string{"0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8"} {
		lease.Routes = append(lease.Routes, dhcp.Route{Dst: netip.MustParsePrefix(dst), Via: via})
	}
	for _, test := range []struct {
		internal, noDefault bool
		want                int
	}{{false, false, 3}, {false, true, 1}, {true, false, 0}} {
		a := attempt{verification: verification{def: &network.Definition{Internal: test.internal}}}
		a.rec.DHCP, a.noDefault = &lease, map[hook.Family]bool{hook.IPv4: test.noDefault}
		if got := a.routesOfLease(); len(got) != test.want {
			t.Errorf("%+v: got routes %v", test, got)
		}
	}
}

// TestRetryAfter checks that a container without an address does not wait for the times of its lease.
func TestRetryAfter(t *testing.T) {
	now := time.Now()
	healthy := dhcp.Lease{Renew: now, Rebind: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)}
	lost, late, last := healthy, healthy, healthy
	lost.Lost = "it ended"
	late.Rebind = now.Add(-time.Second)
	last.Rebind, last.Expires = now.Add(-time.Second), now.Add(6*time.Second)
	other := errors.New("no answer")
	for name, test := range map[string]struct {
		lease dhcp.Lease
		err   error
		want  time.Duration
	}{
		"before T2":       {healthy, other, 30 * time.Minute},
		"after T2":        {late, other, time.Hour},
		"before the end":  {last, other, 6 * time.Second},
		"lost":            {lost, other, lostRetry},
		"address removed": {healthy, withoutAddress(other), lostRetry},
	} {
		if got := retryAfter(&test.lease, now, test.err); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}
