package broker

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"
)

// How many requests of one user are worked on at a time while nobody else has any,
// and how many more connections a user may have. Who starts a hundred containers at
// once gets them all; who wants to keep the broker from others holds up nobody else.
const (
	maxRunning = 4
	maxQueued  = 128
)

// maxConns bounds all connections: well below what a process may have open.
const maxConns = 512

// What a user may ask for at once, and then per second: as many containers as
// one may start at once, and after that more than an engine can start. Who asks for
// more is turned away before anything is done for them, so that all others' floods
// together cost a user no more than the turning away.
const (
	budgetBurst     = maxRunning + maxQueued
	budgetPerSecond = 40
)

// maxBudgets is how many users' budgets are kept before those that are whole again
// are forgotten.
const maxBudgets = 1024

// rateLimitReply is what those read who have spent it.
var rateLimitReply = fmt.Appendf(nil, `{"version":%d,"later":true,"error":"you ask too often: wait a second, and try again"}`, version)

// Errors that callers are turned away with.
var (
	errBusy = errors.New("you have too many requests under way: try again when some are done")
	errFull = errors.New("the broker has too many callers: try again")
)

// scheduler counts connections and hands out turns, per user.
type scheduler struct {
	mu      sync.Mutex
	conns   int
	users   map[uint32]*user
	budgets map[uint32]budget
	idle    list.List // of *visit: those that have not asked for anything yet, the oldest first
	running int       // requests that are worked on
	queue   list.List // of waiter: requests whose turn it is not yet, the oldest first
}

// A budget is what a user had left at a time.
type budget struct {
	tokens float64
	at     time.Time
}

func (b budget) tokensAt(now time.Time) float64 {
	return min(budgetBurst, b.tokens+budgetPerSecond*now.Sub(b.at).Seconds())
}

// spend takes one from the user's budget, if there is one left.
func (s *scheduler) spend(uid uint32, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.budgets[uid]
	left := b.tokensAt(now)
	if !ok {
		left = budgetBurst
		if len(s.budgets) >= maxBudgets {
			maps.DeleteFunc(s.budgets, func(_ uint32, b budget) bool { return b.tokensAt(now) == budgetBurst })
		}
	}
	if left < 1 {
		return false
	}
	if s.budgets == nil {
		s.budgets = map[uint32]budget{}
	}
	s.budgets[uid] = budget{left - 1, now}
	return true
}

type user struct {
	conns   int
	running int
}

// A waiter is a request whose turn it is not yet: started is closed when it is.
type waiter struct {
	user    *user
	started chan struct{}
}

// A session is one connection.
type session struct {
	*user
	uid     uint32
	conn    io.Closer
	idle    *list.Element // nil once it was heard, or sent away
	evicted bool          // sent away, and counted no more
}

// connect counts a connection in. A user has some 65,536 subordinate uids to come
// as, which no bound per user holds: where there is no room, whoever has
// been silent the longest goes. A hook asks at once and never waits in that
// line.
func (s *scheduler) connect(uid uint32, conn io.Closer) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[uid]
	if u == nil {
		u = &user{}
	}
	if u.conns >= maxRunning+maxQueued {
		return nil, errBusy
	}
	if s.conns >= maxConns && !s.evictIdle() {
		return nil, errFull
	}
	if s.users == nil {
		s.users = map[uint32]*user{}
	}
	s.users[uid] = u
	u.conns++
	s.conns++
	sess := &session{user: u, uid: uid, conn: conn}
	sess.idle = s.idle.PushBack(sess)
	return sess, nil
}

func (s *scheduler) evictIdle() bool {
	oldest := s.idle.Front()
	if oldest == nil {
		return false
	}
	sess := s.idle.Remove(oldest).(*session)
	sess.idle, sess.evicted = nil, true
	sess.conn.Close()
	s.remove(sess)
	return true
}

func (s *scheduler) remove(sess *session) {
	s.conns--
	if sess.conns--; sess.conns == 0 {
		delete(s.users, sess.uid)
	}
}

// markActive is called once the visitor has asked for something.
func (s *scheduler) markActive(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess.idle != nil {
		s.idle.Remove(sess.idle)
		sess.idle = nil
	}
}

// disconnect counts a connection out.
func (s *scheduler) disconnect(sess *session) {
	s.markActive(sess)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sess.evicted {
		s.remove(sess)
	}
}

// acquire waits for the user's turn, which ends with done. One request of each user is
// worked on at any time; more of one user's, which take from the others, while there
// are no others.
func (s *scheduler) acquire(ctx context.Context, u *user) (done func(), err error) {
	e, started := s.enqueue(u)
	select {
	case <-started:
	case <-ctx.Done():
		if s.cancel(e) {
			return nil, context.Cause(ctx)
		}
	}
	return func() { s.release(u) }, nil
}

func (s *scheduler) enqueue(u *user) (*list.Element, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	started := make(chan struct{})
	e := s.queue.PushBack(waiter{u, started})
	s.dispatch()
	return e, started
}

// cancel is false where the turn has come after all.
func (s *scheduler) cancel(e *list.Element) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-e.Value.(waiter).started:
		return false
	default:
		s.queue.Remove(e)
		return true
	}
}

func (s *scheduler) release(u *user) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.running--
	s.running--
	s.dispatch()
}

// dispatch has those begin who may. The caller has the lock.
func (s *scheduler) dispatch() {
	for e := s.queue.Front(); e != nil; {
		w, next := e.Value.(waiter), e.Next()
		if u := w.user; u.running == 0 || u.running == s.running && u.running < maxRunning {
			u.running++
			s.running++
			s.queue.Remove(e)
			close(w.started)
		}
		e = next
	}
}
