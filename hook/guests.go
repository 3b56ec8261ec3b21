package hook

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
)

// guestsAnew is after how long the definitions are read whether or not they seem to
// have changed: names of users may be others' by now.
const guestsAnew = time.Minute

// Guests are all whom some network allows, as of the last look.
type Guests struct {
	networks string
	allowed  atomic.Pointer[network.Allowed]
	read     time.Time
	changed  [2]time.Time // the directory of definitions, and the file of subordinate uids
}

// Guests looks for the first time.
func (l *Local) Guests() *Guests {
	g := &Guests{networks: l.Networks}
	g.Look()
	return g
}

// Look reads what has changed. Not to be called by two at once.
func (g *Guests) Look() {
	var changed [2]time.Time
	for i, path := range []string{g.networks, network.Subuids} {
		if info, err := os.Stat(path); err == nil {
			changed[i] = info.ModTime()
		}
	}
	if changed == g.changed && time.Since(g.read) < guestsAnew {
		return
	}
	g.changed, g.read = changed, time.Now()
	g.allowed.Store(network.ReadAllowed(g.networks, network.Subuids))
}

// Has reports whether the user is one; groups is called where they matter, and those
// that it cannot tell are none.
func (g *Guests) Has(uid uint32, groups func() ([]uint32, error)) bool {
	ok, _ := g.allowed.Load().Has(uid, groups)
	return ok
}
