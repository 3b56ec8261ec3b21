package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

// announcements is the number of announcements of a start, because one may be lost. RFC 5227 §2.3
// spaces them by two seconds, which a start cannot wait for.
const announcements = 3

// announceUnlessClaimed announces the addresses, and looks for a late conflict before and after it.
func (t *attempt) announceUnlessClaimed(ctx context.Context, f verify.Findings) error {
	// On a busy host, setting the addresses took longer than another host's whole conflict window.
	// Without this check, the announcement would be a conflict for a host that uses the address by now.
	if err := t.checkLateConflict(ctx, f); err != nil {
		return err
	}
	if err := t.announceAll(); err != nil {
		return err
	}
	t.r.Trace.Mark("announce")
	return t.checkLateConflict(ctx, f)
}

// ownAnnouncements returns how many announcements the interface itself sends. The kernel copies
// each to all siblings on the parent during the send call. Such a copy is not lost, so one is
// enough. The parent sends the others, which go to the LAN only.
func (t *attempt) ownAnnouncements() int {
	if t.unwatched != "" || t.driver().AsksFromParent() {
		return announcements // through a packet socket; with ipvlan, the parent is the sender
	}
	return 1
}

// announceAll announces the addresses from the interface, and from its parent.
func (t *attempt) announceAll() error {
	err := t.onProbeLink(func(index int, name string) error { return t.announceFrom(index, name, t.ownAnnouncements()) })
	if rest := announcements - t.ownAnnouncements(); err == nil && rest > 0 {
		err = t.Host.Do(func() error { return t.announceFrom(t.parent.Index, t.parent.Name, rest) })
	}
	return err
}

// announceFrom announces the addresses a number of times from a link of the calling thread's
// namespace, given by ifindex and name.
func (t *attempt) announceFrom(index int, name string, times int) error {
	a, err := t.Probers.Announcer(index, t.rec.MAC, t.unwatched == "")
	if err != nil {
		return fmt.Errorf("announce from %q: %w", name, err)
	}
	return t.announce(a, times)
}

// announce announces the addresses to other stations: their neighbour caches may have another MAC.
// The container also works if an announcement is lost, so a drop on this host or a link that is
// down is no error: the verdict reports it.
func (t *attempt) announce(a verify.Announcer, times int) error {
	for range times {
		for _, addr := range t.addrs() {
			if err := a.Announce(addr); err != nil && !verify.Dropped(err) {
				return fmt.Errorf("announce %s: %w", addr, err)
			}
		}
	}
	return nil
}

// A lateConflict is returned for a conflict over an address that was not requested, if it is
// detected after the address was set: another host has started a container with it at the same
// time. The address is declined, and the caller repeats the attach from its beginning.
type lateConflict struct{ verify.Claimant }

func (c *lateConflict) Error() string {
	return fmt.Sprintf("address %s was claimed by %s at the same time: start the container again",
		c.Addr, c.MAC.Describe())
}

// checkLateConflict checks for conflicts again after the addresses were set, and after they were
// announced. If two hosts start at the same time, each has by then received the other's question,
// its answer or its announcement. A conflict over a requested address or MAC is a *Refusal, any other one a
// *lateConflict.
func (t *attempt) checkLateConflict(ctx context.Context, f verify.Findings) error {
	if t.unwatched != "" {
		return nil
	}
	// An excused claimant hides no other: the address of the other family may have one, too.
	for excused := true; excused; {
		f.Claimants = slices.DeleteFunc(t.claimants(), func(c verify.Claimant) bool {
			return slices.Contains(t.proxies, c.MAC)
		})
		if len(f.Claimants) == 0 {
			return nil
		}
		var err error
		if excused, err = t.excuse(ctx, f); err != nil {
			return err
		}
	}
	if c := f.Claimants[0]; !t.claimsRequested(c) {
		return errors.Join(&lateConflict{c}, t.giveUp(ctx, t.addrToDecline(c)))
	}
	if err := t.judge(ctx, f); err != nil {
		return err
	}
	return &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
}
