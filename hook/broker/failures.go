package broker

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// What is kept for "lanyard why". Anybody can fail as often as they like: the
// oldest users and failures go. Strangers, who may come as any number of uids, are
// kept apart, and make nobody else go.
const (
	maxUsers    = 256
	maxFailures = 8
	maxText     = 800 // bytes of a failure; all of them fit into one message
)

// failures are the last answers to each user that were no success.
type failures struct {
	mu    sync.Mutex
	byUID map[uint32][]Failure
	order struct{ authorized, unauthorized []uint32 } // users, the one who failed last at the end
}

// add keeps a failure of a user, who is counted as somebody.
func (f *failures) add(uid, charged uint32, container, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byUID == nil {
		f.byUID = map[uint32][]Failure{}
	}
	list, next := f.byUID[uid], Failure{At: time.Now().UTC(), Container: sanitize(container), Error: sanitize(text)}
	if n := len(list); n > 0 && list[n-1].Container == next.Container && list[n-1].Error == next.Error {
		return // the hook tells what it was told
	}
	list = append(list, next)
	if len(list) > maxFailures {
		list = append([]Failure{}, list[len(list)-maxFailures:]...)
	}
	f.byUID[uid] = list
	is := func(u uint32) bool { return u == uid }
	f.order.authorized = slices.DeleteFunc(f.order.authorized, is)
	f.order.unauthorized = slices.DeleteFunc(f.order.unauthorized, is)
	order := &f.order.authorized
	if charged == sharedBudgetUID {
		order = &f.order.unauthorized
	}
	if *order = append(*order, uid); len(*order) > maxUsers {
		delete(f.byUID, (*order)[0])
		*order = (*order)[1:]
	}
}

func (f *failures) forUID(uid uint32) []Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Failure(nil), f.byUID[uid]...)
}

// sanitize keeps a text of a caller's short, and on one line of a terminal.
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s[:min(len(s), maxText)])
}
