package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam/boottime"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestRenewals checks that lost leases do not delay healthy ones or each other, and that no lease is
// renewed twice at the same time.
func TestRenewals(t *testing.T) {
	var recs []hook.Attachment
	now := boottime.Now()
	for i := range 2*renewAtOnce + 2 {
		a := hook.Attachment{ID: verify.ID{byte(i)}, State: hook.Attached, DHCP: &dhcp.Lease{Renew: now, Expires: now}}
		if i > 0 {
			a.DHCP.Lost = "it ended"
		}
		recs = append(recs, a)
	}
	r := newRenewals()
	waiting := func() []due { return r.waiting(recs, r.inProgress()) }
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
	left := waiting()
	if got, want := len(left), renewAtOnce+1; got != want {
		t.Fatalf("%d leases wait, want %d", got, want)
	}
	close(release)
	_, _ = r.lost.Wait(), r.healthy.Wait()
	if all := waiting(); len(all) != len(recs) || all[0].ID != left[0].ID {
		t.Errorf("%d leases wait, the first is %v; want %d, %v", len(all), all[0].ID, len(recs), left[0].ID)
	}
}

// TestRenewalsOfBoth checks that the two leases of one attachment are renewed one after the other, and that
// a failure of one does not delay the other.
func TestRenewalsOfBoth(t *testing.T) {
	now := boottime.Now()
	lease := func() *dhcp.Lease { return &dhcp.Lease{Renew: now, Expires: now} }
	recs := []hook.Attachment{{ID: verify.ID{1}, State: hook.Attached, DHCP: lease(), DHCP6: lease()}}
	r := newRenewals()
	first := r.waiting(recs, r.inProgress())
	if len(first) != 1 || first[0].family != hook.IPv4 {
		t.Fatalf("%+v is renewed first", first)
	}
	release := make(chan struct{})
	r.start(first[0], func() time.Duration { <-release; return time.Hour })
	if busy := r.waiting(recs, r.inProgress()); len(busy) != 0 {
		t.Errorf("%+v is renewed at the same time", busy)
	}
	close(release)
	_ = r.healthy.Wait()
	if next := r.waiting(recs, r.inProgress()); len(next) != 1 || next[0].family != hook.IPv6 {
		t.Errorf("%+v is renewed next", next)
	}
}

// TestUntilOther checks that the replacement of one lease ends in time for the other one.
func TestUntilOther(t *testing.T) {
	now := boottime.Now()
	lease := func(rebind time.Duration, lost string) *dhcp.Lease {
		return &dhcp.Lease{Rebind: now.Add(rebind), Expires: now.Add(time.Hour), Lost: lost}
	}
	for name, test := range map[string]struct {
		other *dhcp.Lease
		want  time.Duration
	}{
		"no other lease":        {nil, noLimit},
		"a lost one":            {lease(time.Minute, "it ended"), noLimit},
		"before T2":             {lease(time.Minute, ""), time.Minute},
		"after T2":              {lease(-time.Minute, ""), noLimit},
		"one that does not end": {&dhcp.Lease{}, noLimit},
	} {
		d := due{hook.Attachment{DHCP: lease(0, "it ended"), DHCP6: test.other}, hook.IPv4}
		if got := d.untilOther(now); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

// envLease makes the test binary print whether the lease in it, as JSON, is due.
const envLease = "LANYARD_TEST_LEASE"

func init() {
	text := os.Getenv(envLease)
	if text == "" {
		return
	}
	a := hook.Attachment{State: hook.Attached, DHCP: new(dhcp.Lease)}
	if err := json.Unmarshal([]byte(text), a.DHCP); err != nil {
		panic(err)
	}
	fmt.Print(len(newRenewals().waiting([]hook.Attachment{a}, nil)))
	os.Exit(0)
}

// TestDueAfterClockSetBack checks that a lease that another process has recorded is due at its time also
// after the wall clock was set back by a minute.
func TestDueAfterClockSetBack(t *testing.T) {
	now := boottime.Now()
	text, err := json.Marshal(dhcp.Lease{Renew: now.Add(50 * time.Second), Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for shift, want := range map[time.Duration]string{0: "0", time.Minute: "1"} {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), envLease+"="+string(text))
		testenv.ShiftClock(t, c, shift)
		if out, err := c.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s later: %v, %q are due, want %s", shift, err, out, want)
		}
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
	now := boottime.Now()
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
