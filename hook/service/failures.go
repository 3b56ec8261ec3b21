package service

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Limits of what is kept for "lanyard why". Any user can cause any number of failures, so
// the oldest failures and users are dropped. Unauthorized callers can use many uids; they
// are in a list of their own and cannot displace other users.
const (
	maxUsers    = 256
	maxFailures = 8
	maxText     = 800 // bytes of one text; maxFailures of them fit into one message
)

// failures holds the last error replies to each user.
type failures struct {
	mu    sync.Mutex
	byUID map[uint32][]Failure
	order struct{ authorized, unauthorized []uint32 } // uids, the most recent failure last
}

// add keeps a failure of a user. charged is the uid that budgetUID returned for it.
func (f *failures) add(uid, charged uint32, container, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byUID == nil {
		f.byUID = map[uint32][]Failure{}
	}
	list, next := f.byUID[uid], Failure{At: time.Now().UTC(), Container: sanitize(container), Error: sanitize(text)}
	if n := len(list); n > 0 && list[n-1].Container == next.Container && list[n-1].Error == next.Error {
		return // the hook reports an error that the service sent it
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
	*order = append(*order, uid)
	if len(*order) > maxUsers {
		delete(f.byUID, (*order)[0])
		*order = (*order)[1:]
	}
}

func (f *failures) forUID(uid uint32) []Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Failure(nil), f.byUID[uid]...)
}

// sanitize shortens a caller's text to maxText bytes and replaces control characters, so
// that it fits on one line of a terminal.
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s[:min(len(s), maxText)])
}
