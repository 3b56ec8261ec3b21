package hook

import (
	"context"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// leavingFor is how long a rival on this host's own parent has to go. What is left of
// a container that has ended answers for its address until the kernel has taken its
// namespace down, in the background: on a busy host that takes seconds.
const endingTimeout = 5 * time.Second

// A leaver is a rival that an attach has waited for, or would.
type endingLink struct {
	busyMAC     verify.MAC     // that was busy on the parent; zero: none was
	deadline    time.Time      // it is waited for at the most; zero: it has not been yet
	ignoreUntil verify.Instant // what the trunk saw of rivals up to then is no news
	excusedOnce bool           // once, by its MAC alone
}

// excused reports whether the conflicting claim can be ignored: a proxy's (proxy ARP), or
// that of a local container that is ending. The caller then repeats the round.
//
// A proxy answers for every address. Where the address was not asked for by name, a
// claimant is tried as a proxy only when it claims a second candidate: another host's
// containers each claim one, and the trial takes longer than all else.
func (t *attempt) excused(ctx context.Context, f verify.Findings) (bool, error) {
	r := f.Claimants[0]
	if r.SameMAC {
		return t.movedFromTrunk(ctx)
	}
	again := slices.Contains(t.declinedTo, r.MAC)
	t.declinedTo = append(t.declinedTo, r.MAC)
	if again || t.isRequested(r.Addr) {
		if proxy, err := t.isProxy(ctx, f); proxy || err != nil {
			return proxy, err
		}
	}
	return t.waitForEnding(ctx, r)
}

// left waits for a rival that is a neighbour on the same parent to go, where the
// address was asked for by name: its next container is then often here before the
// last one has gone. For any other the next address is quicker.
func (t *attempt) waitForEnding(ctx context.Context, r verify.Claimant) (bool, error) {
	if !t.isRequested(r.Addr) {
		return false, nil
	}
	here, err := t.hadAddressHere(r)
	if err != nil {
		return false, err
	}
	there, err := t.waitUntilGone(ctx, t.parent.Index, r.MAC, nil)
	if err != nil || there == macStays {
		return false, err
	}
	t.hostState, t.ending.ignoreUntil = nil, verify.Now()
	return here || there == macGone, nil
}

// presence is what was found of a MAC on this host's parents.
type presence int

const (
	macAbsent presence = iota // it is not there
	macGone                   // it was there, and is gone
	macStays                  // it was there until the time to wait was over
)

// waitUntilGone waits until no link with a MAC is up on a parent, 0 for all of the host's
// that where allows. All waits of an attach together are bounded by leavingFor.
func (t *attempt) waitUntilGone(ctx context.Context, parent int, mac verify.MAC, where func(index int) bool) (presence, error) {
	if t.ending.deadline.IsZero() {
		t.ending.deadline = time.Now().Add(endingTimeout)
	}
	found := macAbsent
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		list, err := t.Host.UnicastMACs(parent)
		if err != nil {
			return macAbsent, err
		}
		if !slices.ContainsFunc(list, func(u link.UnicastMAC) bool {
			return verify.MACOf(u.MAC) == mac && (where == nil || where(u.Parent))
		}) {
			return found, nil
		}
		if found = macGone; time.Now().After(t.ending.deadline) {
			return macStays, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return macAbsent, ctx.Err()
		}
	}
}

// oursBefore reports whether a claimant has a MAC that the last container with this
// address had here: it may have ended between its answer and our look at the parent.
// That excuses it once: a station elsewhere answers again.
func (t *attempt) hadAddressHere(r verify.Claimant) (bool, error) {
	if t.ending.excusedOnce {
		return false, nil
	}
	second, err := t.derivedMAC(t.def.Name, r.Addr.String()+alternativeMAC)
	if err != nil {
		return false, err
	}
	t.ending.excusedOnce = r.MAC == t.ending.busyMAC || r.MAC == second
	return t.ending.excusedOnce, nil
}
