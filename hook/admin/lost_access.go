package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
)

// lostHostAccess returns an event for each network with containers that this host cannot reach any more,
// because its own link is missing or down, or routes to containers are missing. It skips attachments
// without a parent.
func (l *Admin) lostHostAccess(ctx context.Context, links []createdLink) ([]TrunkEvent, error) {
	recs, err := l.reachable(ctx)
	if err != nil || len(recs) == 0 {
		return nil, err
	}
	routes, err := l.Host.HostRoutes()
	if err != nil {
		return nil, err
	}
	lost := findLost(recs, links, routes)
	if len(lost) == 0 {
		return nil, nil
	}
	// A container may have ended since: its routes are removed before its record. Or another one has
	// started.
	if recs, err = l.reachable(ctx); err != nil {
		return nil, err
	}
	if routes, err = l.Host.HostRoutes(); err != nil {
		return nil, err
	}
	var list []TrunkEvent
	for _, gone := range findLost(recs, links, routes) {
		if slices.ContainsFunc(lost, gone.sameAs) {
			list = append(list, changeOf(gone.link, gone.network, gone.first, time.Now(), gone.text()))
		}
	}
	return list, nil
}

// reachable returns the attachments on networks with host access, if their parent exists.
func (l *Admin) reachable(ctx context.Context) ([]hook.Attachment, error) {
	recs, err := l.Attachments(ctx)
	missing := map[int]bool{}
	return slices.DeleteFunc(recs, func(a hook.Attachment) bool {
		if a.State != hook.Attached || a.HostLink == "" {
			return true
		}
		gone, known := missing[a.ParentIdx]
		if !known {
			_, err := l.Host.ParentAt(a.ParentIdx)
			gone = errors.Is(err, link.ErrNoLink)
			missing[a.ParentIdx] = gone
		}
		return gone
	}), err
}

// lostAccess is what the host has lost on a network: its own link, or routes through it.
type lostAccess struct {
	network, link string
	state         string     // of the link: "gone" or "down"; "" if it is up
	routes        int        // the number of missing routes, if it is up
	first         netip.Addr // the destination of the first one
}

func (g lostAccess) sameAs(o lostAccess) bool { return g.network == o.network && g.state == o.state }

// findLost returns what the host has lost, by network, in the order of the attachments.
func findLost(recs []hook.Attachment, links []createdLink, routes map[link.HostAddr]bool) (lost []lostAccess) {
	own := map[string]createdLink{}
	for _, c := range links {
		if c.own {
			own[c.name] = c
		}
	}
	for _, a := range recs {
		at := slices.IndexFunc(lost, func(g lostAccess) bool { return g.network == a.Network })
		c, exists := own[a.HostLink]
		switch {
		case at >= 0 && lost[at].state != "":
		case !exists:
			lost = append(lost, lostAccess{network: a.Network, link: a.HostLink, state: "gone"})
		case !c.up:
			lost = append(lost, lostAccess{network: a.Network, link: a.HostLink, state: "down"})
		default:
			for _, p := range a.Addrs {
				if routes[link.HostAddr{Addr: p.Addr(), Index: c.index}] {
					continue
				}
				if at < 0 {
					at = len(lost)
					lost = append(lost, lostAccess{network: a.Network, link: a.HostLink, first: p.Addr()})
				}
				lost[at].routes++
			}
		}
	}
	return lost
}

// text says what another program has done, and what to do.
func (g lostAccess) text() string {
	const remedy = `: run "lanyard restore"`
	switch {
	case g.state != "":
		return fmt.Sprintf("%q, this host's own link, is %s, so this host does not reach the containers"+remedy, g.link,
			g.state)
	case g.routes == 1:
		return fmt.Sprintf("another program has deleted this host's route to %s through %q"+remedy, g.first, g.link)
	}
	return fmt.Sprintf("another program has deleted %d of this host's routes through %q, the first to %s"+remedy,
		g.routes, g.link, g.first)
}
