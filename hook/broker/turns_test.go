package broker

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A user who asks without end gets what an engine may need, and takes nothing
// from others.
func TestSpend(t *testing.T) {
	var ts turns
	now := time.Now()
	ask := func(uid uint32, times int) (got int) {
		for range times {
			if ts.spend(uid, now) {
				got++
			}
		}
		return got
	}
	if got := ask(1, 10_000); got != burst {
		t.Errorf("a flood was let in %d times, want %d", got, burst)
	}
	if got := ask(2, 100); got != 100 {
		t.Errorf("another user was let in %d of 100 times", got)
	}
	now = now.Add(time.Second)
	if got := ask(1, 10_000); got != perSecond {
		t.Errorf("a second later %d were let in, want %d", got, perSecond)
	}
	now = now.Add(time.Hour)
	if got := ask(1, 10_000); got != burst {
		t.Errorf("an hour later %d were let in, want %d", got, burst)
	}
}

// Uids that are heard of once are not remembered for ever.
func TestSpendForgets(t *testing.T) {
	var ts turns
	now := time.Now()
	for uid := range uint32(100_000) {
		if !ts.spend(uid, now) {
			t.Fatalf("uid %d was turned away the first time", uid)
		}
		now = now.Add(time.Millisecond)
	}
	if n := len(ts.budgets); n > maxBudgets {
		t.Errorf("%d users are remembered, want at most %d", n, maxBudgets)
	}
}

// Who is alone has several requests worked on at a time; beside others, one.
func TestTurn(t *testing.T) {
	var ts turns
	ctx := t.Context()
	mustTurn := func(u *user) (done func()) {
		t.Helper()
		done, err := ts.turn(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	hasNone := func(u *user) {
		t.Helper()
		gone, cancel := context.WithCancelCause(ctx)
		cause := errors.New("gave up")
		cancel(cause)
		if _, err := ts.turn(gone, u); !errors.Is(err, cause) {
			t.Errorf("got a turn, or the error %v", err)
		}
	}
	alice, bob := &user{}, &user{}
	var ends []func()
	for range perUser {
		ends = append(ends, mustTurn(alice))
	}
	hasNone(alice)
	bobs := mustTurn(bob)
	hasNone(bob)
	for _, end := range ends[1:] {
		end()
		hasNone(alice)
	}
	later := make(chan func())
	go func() { later <- mustTurn(alice) }()
	ends[0]()
	(<-later)()
	more := mustTurn(alice)
	bobs()
	mustTurn(alice)()
	more()
	if ts.working != 0 || alice.working != 0 || bob.working != 0 || ts.queue.Len() != 0 {
		t.Errorf("%d are worked on in the end, %d wait", ts.working, ts.queue.Len())
	}
}
