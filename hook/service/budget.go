package service

import (
	"context"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
)

// sharedBudgetUID is the rate-limit key for all unauthorized callers: those that no
// network allows. peerOf rejects this uid, so no caller has it. A user has up to 65,536
// subordinate uids; a budget of requests and connections for each of them would let
// one user exhaust the service.
const sharedBudgetUID = overflowUID

// elsewhereBudgetUID is the rate-limit key for root's callers of other hosts, such as a rootful
// container with the socket in it. They must neither use up root's places, nor wait for unauthorized
// users. The uid is free, because root of this host has no limit.
const elsewhereBudgetUID = 0

// allowListInterval is the poll interval for changes of the networks' allow lists. Until
// the next poll, a newly allowed user shares the budget of the unauthorized callers. That
// has an effect only during a flood from such callers.
const allowListInterval = time.Second

// pollAllowList updates list every allowListInterval until ctx ends.
func pollAllowList(ctx context.Context, list *network.AllowList) {
	tick := time.NewTicker(allowListInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			list.Refresh()
		case <-ctx.Done():
			return
		}
	}
}

// budgetUID returns the uid that the requests of the caller at fd are charged to: its
// own, or sharedBudgetUID.
func (s *Server) budgetUID(fd int, uid uint32) uint32 {
	if s.AllowList.Allows(uid, func() ([]uint32, error) { return groupsOf(fd) }) {
		return uid
	}
	return sharedBudgetUID
}
