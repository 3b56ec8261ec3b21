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
	var s scheduler
	now := time.Now()
	ask := func(uid uint32, times int) (got int) {
		for range times {
			if s.spend(uid, now) {
				got++
			}
		}
		return got
	}
	if got := ask(1, 10_000); got != budgetBurst {
		t.Errorf("a flood was let in %d times, want %d", got, budgetBurst)
	}
	if got := ask(2, 100); got != 100 {
		t.Errorf("another user was let in %d of 100 times", got)
	}
	now = now.Add(time.Second)
	if got := ask(1, 10_000); got != budgetPerSecond {
		t.Errorf("a second later %d were let in, want %d", got, budgetPerSecond)
	}
	now = now.Add(time.Hour)
	if got := ask(1, 10_000); got != budgetBurst {
		t.Errorf("an hour later %d were let in, want %d", got, budgetBurst)
	}
}

// Uids that are heard of once are not remembered for ever.
func TestSpendForgets(t *testing.T) {
	var s scheduler
	now := time.Now()
	for uid := range uint32(100_000) {
		if !s.spend(uid, now) {
			t.Fatalf("uid %d was turned away the first time", uid)
		}
		now = now.Add(time.Millisecond)
	}
	if n := len(s.budgets); n > maxBudgets {
		t.Errorf("%d users are remembered, want at most %d", n, maxBudgets)
	}
}

// Who is alone has several requests worked on at a time; beside others, one.
func TestAcquire(t *testing.T) {
	var s scheduler
	ctx := t.Context()
	mustAcquire := func(u *user) (done func()) {
		t.Helper()
		done, err := s.acquire(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	mustWait := func(u *user) {
		t.Helper()
		gone, cancel := context.WithCancelCause(ctx)
		cause := errors.New("gave up")
		cancel(cause)
		if _, err := s.acquire(gone, u); !errors.Is(err, cause) {
			t.Errorf("got a turn, or the error %v", err)
		}
	}
	alice, bob := &user{}, &user{}
	var ends []func()
	for range maxRunning {
		ends = append(ends, mustAcquire(alice))
	}
	mustWait(alice)
	bobs := mustAcquire(bob)
	mustWait(bob)
	for _, end := range ends[1:] {
		end()
		mustWait(alice)
	}
	later := make(chan func())
	go func() { later <- mustAcquire(alice) }()
	ends[0]()
	(<-later)()
	more := mustAcquire(alice)
	bobs()
	mustAcquire(alice)()
	more()
	if s.running != 0 || alice.running != 0 || bob.running != 0 || s.queue.Len() != 0 {
		t.Errorf("%d are worked on in the end, %d wait", s.running, s.queue.Len())
	}
}
