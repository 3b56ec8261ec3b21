package testenv

import (
	"os"
	"testing"
	"time"
)

// eventTimeout is how long a test waits for an event. It is generous, since an emulated machine is
// slow, and costs nothing if the event comes.
const eventTimeout = 10 * time.Second

// Eventually calls ask until it returns nil. After ten seconds it fails the test with the last
// error. It is for events that cannot be waited for in another way.
func Eventually(tb testing.TB, what string, ask func() error) {
	tb.Helper()
	eventually(tb.Fatalf, eventTimeout, what, ask)
}

// RemoveAll removes a directory of an engine. The engine's last processes may still end, and write there.
func RemoveAll(tb testing.TB, dir string) {
	tb.Helper()
	Eventually(tb, "the end of processes that write to "+dir, func() error { return os.RemoveAll(dir) })
}

// eventually calls ask often at first, since most events come within a moment, and then less often:
// on a busy machine the calls themselves slow down the event.
func eventually(fail func(string, ...any), timeout time.Duration, what string, ask func() error) {
	const longestPause = 50 * time.Millisecond
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			fail("waited %v for %s: %v", timeout, what, err)
			return
		}
		<-time.After(pause)
	}
}
