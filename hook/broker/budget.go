package broker

import (
	"context"
	"time"

	"github.com/lanyard-net/lanyard/hook"
)

// sharedBudgetUID is the uid that all those are counted under whom no network allows: no
// caller has it (peerOf). A user has some 65,536 subordinate uids to come as; what
// each may ask for, and as many connections as each may have, would be more than
// the broker has to give.
const sharedBudgetUID = overflowUID

// allowListInterval is how often the definitions are looked at for whom they allow. Who was
// allowed a moment ago is a stranger until then, and feels it amid a flood of other
// strangers alone.
const allowListInterval = time.Second

// pollAllowList looks until ctx ends.
func pollAllowList(ctx context.Context, list *hook.Guests) {
	tick := time.NewTicker(allowListInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			list.Look()
		case <-ctx.Done():
			return
		}
	}
}

// budgetUID is whom the caller at fd is counted as.
func (s *Server) budgetUID(fd int, uid uint32) uint32 {
	if s.allowList.Has(uid, func() ([]uint32, error) { return groupsOf(fd) }) {
		return uid
	}
	return sharedBudgetUID
}
