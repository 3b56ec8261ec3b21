package hook

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
)

// guestsAnew is after how long the definitions are read whether or not they seem to
// have changed: names of users may be others' by now.
const allowListMaxAge = time.Minute

// Guests are all whom some network allows, as of the last look.
type AllowList struct {
	networks string
	allowed  atomic.Pointer[network.Allowed]
	read     time.Time
	changed  [2]time.Time // the directory of definitions, and the file of subordinate uids
}

// Guests looks for the first time.
func (l *Local) AllowList() *AllowList {
	g := &AllowList{networks: l.Networks}
	g.Refresh()
	return g
}

// Look reads what has changed. Not to be called by two at once.
func (g *AllowList) Refresh() {
	var changed [2]time.Time
	for i, path := range []string{g.networks, network.Subuids} {
		if info, err := os.Stat(path); err == nil {
			changed[i] = info.ModTime()
		}
	}
	if changed == g.changed && time.Since(g.read) < allowListMaxAge {
		return
	}
	g.changed, g.read = changed, time.Now()
	g.allowed.Store(network.ReadAllowed(g.networks, network.Subuids))
}

// Has reports whether the user is one; groups is called where they matter, and those
// that it cannot tell are none.
func (g *AllowList) Allows(uid uint32, groups func() ([]uint32, error)) bool {
	ok, _ := g.allowed.Load().Has(uid, groups)
	return ok
}
