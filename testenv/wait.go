package testenv

import (
	"testing"
	"time"
)

// patience is how long an event may take before a test gives up on it. It is
// generous, since an emulated machine is slow, and costs nothing when all is well.
const patience = 10 * time.Second

// Eventually asks until the answer is nil, and fails the test with the last
// answer where that takes more than ten seconds. It is for events that nobody
// announces.
func Eventually(tb testing.TB, what string, ask func() error) {
	tb.Helper()
	eventually(tb.Fatalf, patience, what, ask)
}

// eventually asks often at first, since most events are a moment away, and
// then seldom: on a busy machine asking takes from what it waits for.
func eventually(fail func(string, ...any), patience time.Duration, what string, ask func() error) {
	const seldom = 50 * time.Millisecond
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, seldom) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			fail("waited %v for %s: %v", patience, what, err)
			return
		}
		<-time.After(pause)
	}
}
