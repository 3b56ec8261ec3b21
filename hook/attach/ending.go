package attach

import (
	"context"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// endingTimeout is the total time that an attach waits for links of ended containers on this host.
// Such a link answers for its address until the kernel has removed its namespace in the background,
// which takes seconds on a busy host.
const endingTimeout = 5 * time.Second

// endingLink is an attach's state of waiting for a claimant that is a link of an ended container.
type endingLink struct {
	busyMAC  ether.MAC // the derived MAC that was in use on the parent; zero: none was
	deadline time.Time // the end of all waits; zero: no wait has begun
}

// excuse finds out whether the first claim of the findings can be ignored: that of a proxy (proxy
// ARP), or that of a local container that is ending: it waits for the end. If it returns true, the caller
// repeats the round.
//
// A proxy answers for every address. Where the address was not asked for by name, a
// claimant is tried as a proxy only when it claims a second candidate: another host's containers
// each claim one, and the trial is the slowest step of an attach.
func (t *attempt) excuse(ctx context.Context, f verify.Findings) (bool, error) {
	c := f.Claimants[0]
	if c.SameMAC {
		return t.movedFromTrunk(ctx)
	}
	again := slices.Contains(t.seenClaimants, c.MAC)
	t.seenClaimants = append(t.seenClaimants, c.MAC)
	if again || t.isRequested(c.Addr) {
		if proxy, err := t.isProxy(ctx, f); proxy || err != nil {
			return proxy, err
		}
	}
	return t.waitForEnding(ctx, c)
}

// waitForEnding waits until a claimant on the same parent is gone, if the address was requested:
// often the next container with an address starts before the kernel has removed the last one. It
// reports whether the claimant was such a link and is gone. For other addresses, trying the next
// one is faster.
func (t *attempt) waitForEnding(ctx context.Context, c verify.Claimant) (bool, error) {
	if !t.isRequested(c.Addr) {
		return false, nil
	}
	hadAddress, err := t.hadAddressHere(c.MAC)
	if err != nil {
		return false, err
	}
	end, err := t.waitUntilGone(ctx, t.parent.Index, c.MAC, nil)
	if err != nil || end == macStays {
		return false, err
	}
	t.hostState = nil
	if !hadAddress && end != macGone {
		return false, nil
	}
	t.ignoreUpToNow(c.MAC)
	return true, nil
}

// presence is the result of waiting for a MAC on this host's parents to disappear.
type presence int

const (
	macAbsent presence = iota // no link had it
	macGone                   // a link had it, and is gone
	macStays                  // a link had it until the deadline
)

// waitUntilGone waits until no link with a MAC is up on the parent with an ifindex. With parent 0,
// it waits for all parents of the host with an ifindex that where returns true for; a nil where
// selects all. All waits of one attach together take at most endingTimeout.
func (t *attempt) waitUntilGone(
	ctx context.Context, parent int, mac ether.MAC, where func(index int) bool,
) (presence, error) {
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
			return u.MAC == mac && (where == nil || where(u.Parent))
		}) {
			return found, nil
		}
		found = macGone
		if time.Now().After(t.ending.deadline) {
			return macStays, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return macAbsent, ctx.Err()
		}
	}
}

// hadAddressHere reports whether the claimant's MAC is one that a container of this host had until a
// moment ago, on any of its networks: its link may have disappeared between its answer and the search
// for it. This excuses a MAC once, because a station elsewhere answers again.
func (t *attempt) hadAddressHere(mac ether.MAC) (bool, error) {
	if _, again := t.excused[mac]; again {
		return false, nil
	}
	if mac == t.ending.busyMAC {
		return true, nil
	}
	return t.endedRecently(mac, 0)
}

// lastFrames is how long frames of a container that has ended on this host may still arrive.
const lastFrames = 10 * time.Second

// endedRecently reports whether the watch of a MAC ended within lastFrames on any trunk but that with the
// ifindex except.
func (t *attempt) endedRecently(mac ether.MAC, except int) (bool, error) {
	ended, err := t.Datapath.Ended(mac, except)
	return ended != 0 && verify.Now().Sub(ended) < lastFrames, err
}

// movedFromTrunk reports whether a container of this host had the MAC on another trunk until a
// moment ago: then the frames with the MAC were that container's last ones. It waits until the
// container's link is gone.
func (t *attempt) movedFromTrunk(ctx context.Context) (bool, error) {
	moved, err := t.endedRecently(t.rec.MAC, t.rec.Endpoint.Trunk)
	if err != nil {
		return false, err
	}
	elsewhere := func(index int) bool { return !slices.Contains(t.parent.Chain, index) }
	found, err := t.waitUntilGone(ctx, 0, t.rec.MAC, elsewhere)
	if err != nil || found == macStays {
		return false, err
	}
	if !moved && found == macAbsent || time.Now().After(t.ending.deadline) {
		return false, nil
	}
	t.ignoreUpToNow(t.rec.MAC)
	return true, nil
}

// ignoreUpToNow excuses the claims that a station has made so far. Those of other stations count.
func (v *verification) ignoreUpToNow(mac ether.MAC) {
	if v.excused == nil {
		v.excused = map[ether.MAC]verify.Instant{}
	}
	v.excused[mac] = verify.Now()
}
