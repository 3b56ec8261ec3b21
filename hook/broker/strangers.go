package broker

import (
	"context"
	"time"

	"github.com/lanyard-net/lanyard/hook"
)

// strangers is the uid that all those are counted under whom no network allows: no
// caller has it (peerOf). A user has some 65,536 subordinate uids to come as; what
// each may ask for, and as many connections as each may have, would be more than
// the broker has to give.
const strangers = overflowID

// guestsLook is how often the definitions are looked at for whom they allow. Who was
// allowed a moment ago is a stranger until then, and feels it amid a flood of other
// strangers alone.
const guestsLook = time.Second

// follow looks until ctx ends.
func follow(ctx context.Context, g *hook.Guests) {
	tick := time.NewTicker(guestsLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.Look()
		case <-ctx.Done():
			return
		}
	}
}

// countedAs is whom the caller at fd is counted as.
func (s *Server) countedAs(fd int, uid uint32) uint32 {
	if s.guests.Has(uid, func() ([]uint32, error) { return groupsOf(fd) }) {
		return uid
	}
	return strangers
}
