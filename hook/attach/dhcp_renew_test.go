package attach

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
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
