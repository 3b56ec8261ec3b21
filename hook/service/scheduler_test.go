package service

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A flood of one user is limited to the user's budget and costs other users nothing.
func TestSpend(t *testing.T) {
	var s scheduler
	now := time.Now()
	spend := func(uid uint32, times int) (got int) {
		for range times {
			if s.spend(uid, now) {
				got++
			}
		}
		return got
	}
	if got := spend(1, 10_000); got != budgetBurst {
		t.Errorf("%d requests of a flood are accepted, want %d", got, budgetBurst)
	}
	if got := spend(2, 100); got != 100 {
		t.Errorf("%d of 100 requests of another user are accepted", got)
	}
	now = now.Add(time.Second)
	if got := spend(1, 10_000); got != budgetPerSecond {
		t.Errorf("%d requests are accepted a second later, want %d", got, budgetPerSecond)
	}
	now = now.Add(time.Hour)
	if got := spend(1, 10_000); got != budgetBurst {
		t.Errorf("%d requests are accepted an hour later, want %d", got, budgetBurst)
	}
}

// The budgets of uids that sent one request are deleted again.
func TestFullBudgetsAreDeleted(t *testing.T) {
	var s scheduler
	now := time.Now()
	for uid := range uint32(100_000) {
		if !s.spend(uid, now) {
			t.Fatalf("the first request of uid %d is rejected", uid)
		}
		now = now.Add(time.Millisecond)
	}
	if n := len(s.budgets); n > maxBudgets {
		t.Errorf("%d budgets are kept, want at most %d", n, maxBudgets)
	}
}

// The requests of a single user run several at a time; with other users, one at a time.
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
		ended, cancel := context.WithCancelCause(ctx)
		cause := errors.New("gave up")
		cancel(cause)
		if _, err := s.acquire(ended, u); !errors.Is(err, cause) {
			t.Errorf("acquire returned %v, want the cause of the end of ctx", err)
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
		t.Errorf("%d requests run at the end, %d wait", s.running, s.queue.Len())
	}
}
