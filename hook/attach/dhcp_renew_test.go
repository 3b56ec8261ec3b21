package attach

import (
	"errors"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam/dhcp"
)

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
