// Package boottime has the clock that leases are measured by on a host. CLOCK_BOOTTIME counts from
// the boot, also while the machine is suspended, and cannot be set: an administrator or NTP that sets
// the wall clock neither ends a lease nor delays its renewal. All processes of a host read the same
// time, so that it can be kept in a database in /run, which does not outlive the boot.
package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Instant is a time of CLOCK_BOOTTIME in nanoseconds. Zero means none.
type Instant int64

// Now returns the current time.
func Now() Instant {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // cannot fail with these arguments
	}
	return Instant(ts.Nano())
}

// Add returns the time d after t.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the duration from o to t.
func (t Instant) Sub(o Instant) time.Duration { return time.Duration(t - o) }

// Wall returns the time that the wall clock shows at t, as the clock is set now; zero for none.
func (t Instant) Wall() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Now().Add(t.Sub(Now())).Round(time.Second).UTC()
}
