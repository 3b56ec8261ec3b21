package service

import (
	"container/list"
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// Limits of one user: requests that run at a time while no other user has any, and
// further connections. A user that starts a hundred containers at once gets all of them,
// and a user that floods the service delays no other user, and not root.
const (
	maxRunning = 4
	maxQueued  = 128
)

// Limits of root: requests that run at a time, and connections. Root's requests neither wait for
// those of users nor count as theirs.
const (
	maxRootRunning = 32
	maxRootConns   = 1024
)

// maxConns is the maximum number of connections, well below the number of files that a
// process may have open.
const maxConns = 512

// The budget of one user: requests at once, and then requests per second. It covers as
// many containers as a user may start at once, and then more than an engine can start.
// Requests over the budget are rejected before any work is done for them, so a flood
// costs other users no more than these rejections.
const (
	budgetBurst     = maxRunning + maxQueued
	budgetPerSecond = 40
)

// maxBudgets is the number of kept budgets at which a new one causes full ones to be deleted.
const maxBudgets = 1024

// rateLimitReply is the reply to a user without budget.
var rateLimitReply = []byte(string(wire.Later) + "too many requests per second from your user: try again in a second")

// elsewhereLimitReply is the reply to a caller of root's of another host, if they have no budget left. The
// service does not attach for it in any case.
var elsewhereLimitReply = []byte(string(wire.NotMine) + "too many requests per second from containers of root's")

// Errors of connect, sent to the caller.
var (
	errBusy = errors.New("your user has too many requests in progress: try again when some are done")
	errFull = errors.New("the service has too many connections: try again")
)

// scheduler limits connections and requests per user, and decides which request runs next.
type scheduler struct {
	mu      sync.Mutex
	conns   int // of users
	root    user
	users   map[uint32]*user
	budgets map[uint32]budget
	idle    list.List // of *session: connections that have sent no request yet, the oldest first
	running int       // requests of users that run now
	queue   list.List // of waiter: requests that wait to run, the oldest first
}

// A budget is the number of requests that a user had left at a time.
type budget struct {
	tokens float64
	at     time.Time
}

func (b budget) tokensAt(now time.Time) float64 {
	return min(budgetBurst, b.tokens+budgetPerSecond*now.Sub(b.at).Seconds())
}

// spend charges one request to the user's budget. It returns false if none is left.
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

// A waiter is a request that waits to run. started is closed when it may.
type waiter struct {
	user    *user
	started chan struct{}
}

// A session is one connection of a user.
type session struct {
	*user
	uid     uint32
	conn    io.Closer
	idle    *list.Element // its element in scheduler.idle; nil after its request, or if evicted
	evicted bool          // closed by evictIdle, and no longer counted
}

// connect registers a connection. It returns errBusy if the user has too many, and errFull
// if all users together do. A user can connect with 65,536 subordinate uids, which a limit
// per uid does not stop; so at maxConns, connect closes the connection that has been idle
// the longest. A hook sends its request at once, so it is not idle.
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
	sess.conns--
	if sess.user == &s.root {
		return
	}
	s.conns--
	if sess.conns == 0 {
		delete(s.users, sess.uid)
	}
}

// connectRoot registers a connection of root. It returns errFull if root has too many.
func (s *scheduler) connectRoot(conn io.Closer) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root.conns >= maxRootConns {
		return nil, errFull
	}
	s.root.conns++
	return &session{user: &s.root, conn: conn}, nil
}

// markActive notes that the connection has sent its request.
func (s *scheduler) markActive(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess.idle != nil {
		s.idle.Remove(sess.idle)
		sess.idle = nil
	}
}

// disconnect ends the registration by connect.
func (s *scheduler) disconnect(sess *session) {
	s.markActive(sess)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sess.evicted {
		s.remove(sess)
	}
}

// acquire waits until a request of the user may run; done ends it. Each user can always run
// one request. More would take time from other users, so a user runs up to maxRunning only
// while no other user runs any. Root runs up to maxRootRunning. If ctx ends first, acquire
// returns its cause.
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

// cancel removes a waiter from the queue. It returns false if the request has started.
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
	if u != &s.root {
		s.running--
	}
	s.dispatch()
}

// dispatch starts the waiting requests that may run. The caller holds s.mu.
func (s *scheduler) dispatch() {
	for e := s.queue.Front(); e != nil; {
		w, next := e.Value.(waiter), e.Next()
		if s.mayRun(w.user) {
			w.user.running++
			if w.user != &s.root {
				s.running++
			}
			s.queue.Remove(e)
			close(w.started)
		}
		e = next
	}
}

// mayRun reports whether another request of the user may run now.
func (s *scheduler) mayRun(u *user) bool {
	if u == &s.root {
		return u.running < maxRootRunning
	}
	return u.running == 0 || u.running == s.running && u.running < maxRunning
}
