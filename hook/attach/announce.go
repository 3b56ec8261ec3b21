package attach

import (
	"fmt"

	"github.com/lanyard-net/lanyard/verify"
)

// announcements is the number of announcements of a start, because one may be lost. RFC 5227 §2.3
// spaces them by two seconds, which a start cannot wait for.
const announcements = 3

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
