package network

import (
	"os"
	"sync/atomic"
	"time"
)

// allowListMaxAge is the time after which the definitions are read again even if no file has
// changed: a user's name may belong to another uid by then.
const allowListMaxAge = time.Minute

// AllowList is the users that any network allows, as of the last Refresh.
type AllowList struct {
	networks string
	allowed  atomic.Pointer[Allowed]
	read     time.Time
	changed  [2]time.Time // the directory of definitions, and the file of subordinate uids
}

// NewAllowList returns the list of the definitions in a directory, after a first Refresh.
func NewAllowList(networks string) *AllowList {
	a := &AllowList{networks: networks}
	a.Refresh()
	return a
}

// Refresh reads the definitions again if they have changed, or if the list is too old. It must not
// be called concurrently.
func (a *AllowList) Refresh() {
	var changed [2]time.Time
	for i, path := range []string{a.networks, Subuids} {
		if info, err := os.Stat(path); err == nil {
			changed[i] = info.ModTime()
		}
	}
	if changed == a.changed && time.Since(a.read) < allowListMaxAge {
		return
	}
	a.changed, a.read = changed, time.Now()
	a.allowed.Store(ReadAllowed(a.networks, Subuids))
}

// Allows reports whether any network allows the user. It calls groups only if the result depends on
// the user's groups. If groups returns an error, the user is in no group. It is safe for concurrent
// use, also during a Refresh.
func (a *AllowList) Allows(uid uint32, groups func() ([]uint32, error)) bool {
	ok, _ := a.allowed.Load().Has(uid, groups)
	return ok
}
