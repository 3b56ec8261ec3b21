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
	perUser = 4
	waiting = 128
)

// maxConns bounds all connections: well below what a process may have open.
const maxConns = 512

// What a user may ask for at once, and then per second: as many containers as
// one may start at once, and after that more than an engine can start. Who asks for
// more is turned away before anything is done for them, so that all others' floods
// together cost a user no more than the turning away.
const (
	burst     = perUser + waiting
	perSecond = 40
)

// maxBudgets is how many users' budgets are kept before those that are whole again
// are forgotten.
const maxBudgets = 1024

// tooOften is what those read who have spent it.
var tooOften = fmt.Appendf(nil, `{"version":%d,"later":true,"error":"you ask too often: wait a second, and try again"}`, version)

// Errors that callers are turned away with.
var (
	errBusy = errors.New("you have too many requests under way: try again when some are done")
	errFull = errors.New("the broker has too many callers: try again")
)

// turns counts connections and hands out turns, per user.
type turns struct {
	mu      sync.Mutex
	conns   int
	users   map[uint32]*user
	budgets map[uint32]budget
	silent  list.List // of *visit: those that have not asked for anything yet, the oldest first
	working int       // requests that are worked on
	queue   list.List // of waiter: requests whose turn it is not yet, the oldest first
}

// A budget is what a user had left at a time.
type budget struct {
	left float64
	at   time.Time
}

func (b budget) now(now time.Time) float64 {
	return min(burst, b.left+perSecond*now.Sub(b.at).Seconds())
}

// spend takes one from the user's budget, if there is one left.
func (t *turns) spend(uid uint32, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.budgets[uid]
	left := b.now(now)
	if !ok {
		left = burst
		if len(t.budgets) >= maxBudgets {
			maps.DeleteFunc(t.budgets, func(_ uint32, b budget) bool { return b.now(now) == burst })
		}
	}
	if left < 1 {
		return false
	}
	if t.budgets == nil {
		t.budgets = map[uint32]budget{}
	}
	t.budgets[uid] = budget{left - 1, now}
	return true
}

type user struct {
	conns   int
	working int
}

// A waiter is a request whose turn it is not yet: begun is closed when it is.
type waiter struct {
	user  *user
	begun chan struct{}
}

// A visit is one connection.
type visit struct {
	*user
	uid    uint32
	conn   io.Closer
	silent *list.Element // nil once it was heard, or sent away
	gone   bool          // sent away, and counted no more
}

// join counts a connection in. A user has some 65,536 subordinate uids to come
// as, which no bound per user holds: where there is no room, whoever has
// been silent the longest goes. A hook asks at once and never waits in that
// line.
func (t *turns) join(uid uint32, conn io.Closer) (*visit, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.users[uid]
	if u == nil {
		u = &user{}
	}
	if u.conns >= perUser+waiting {
		return nil, errBusy
	}
	if t.conns >= maxConns && !t.sendAway() {
		return nil, errFull
	}
	if t.users == nil {
		t.users = map[uint32]*user{}
	}
	t.users[uid] = u
	u.conns++
	t.conns++
	v := &visit{user: u, uid: uid, conn: conn}
	v.silent = t.silent.PushBack(v)
	return v, nil
}

func (t *turns) sendAway() bool {
	oldest := t.silent.Front()
	if oldest == nil {
		return false
	}
	v := t.silent.Remove(oldest).(*visit)
	v.silent, v.gone = nil, true
	v.conn.Close()
	t.uncount(v)
	return true
}

func (t *turns) uncount(v *visit) {
	t.conns--
	if v.conns--; v.conns == 0 {
		delete(t.users, v.uid)
	}
}

// heard is called once the visitor has asked for something.
func (t *turns) heard(v *visit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.silent != nil {
		t.silent.Remove(v.silent)
		v.silent = nil
	}
}

// leave counts a connection out.
func (t *turns) leave(v *visit) {
	t.heard(v)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !v.gone {
		t.uncount(v)
	}
}

// turn waits for the user's turn, which ends with done. One request of each user is
// worked on at any time; more of one user's, which take from the others, while there
// are no others.
func (t *turns) turn(ctx context.Context, u *user) (done func(), err error) {
	e, begun := t.queueUp(u)
	select {
	case <-begun:
	case <-ctx.Done():
		if t.giveUp(e) {
			return nil, context.Cause(ctx)
		}
	}
	return func() { t.end(u) }, nil
}

func (t *turns) queueUp(u *user) (*list.Element, chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	begun := make(chan struct{})
	e := t.queue.PushBack(waiter{u, begun})
	t.begin()
	return e, begun
}

// giveUp is false where the turn has come after all.
func (t *turns) giveUp(e *list.Element) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-e.Value.(waiter).begun:
		return false
	default:
		t.queue.Remove(e)
		return true
	}
}

func (t *turns) end(u *user) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u.working--
	t.working--
	t.begin()
}

// begin has those begin who may. The caller has the lock.
func (t *turns) begin() {
	for e := t.queue.Front(); e != nil; {
		w, next := e.Value.(waiter), e.Next()
		if u := w.user; u.working == 0 || u.working == t.working && u.working < perUser {
			u.working++
			t.working++
			t.queue.Remove(e)
			close(w.begun)
		}
		e = next
	}
}
