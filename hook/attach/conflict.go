package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// askConflict asks the LAN, from the parent and with the parent's MAC, whether another station has
// one of the addresses. The trunk program sees the answers. They go to the parent's MAC, so that a
// station with the interface's own MAC answers, too. The parent's frames do not reach the macvlans
// on it: the addresses of Lanyard's are known from their leases, and the others are asked from
// inside the namespace (see unrecordedMACs).
func (v *verification) askConflict() error {
	mac := v.parent.MAC
	return v.Host.Do(func() error {
		for _, a := range v.addrs() {
			questions := []verify.Question{{Addr: a, Conflict: true}}
			if a.Is6() {
				// The answer to one station also passes a network card that has not joined
				// the group of all nodes.
				questions = append(questions, verify.Question{Addr: a, Conflict: true, From: mac.ProbeLinkLocal()})
			}
			for _, q := range questions {
				if err := v.Probers.Ask(v.parent.Index, mac, q); err != nil {
					return fmt.Errorf("ask from parent %q: %w", v.parent.Name, err)
				}
			}
		}
		return nil
	})
}

// openWindow asks the conflict question for the first time, so that the conflict window is open
// while the interface is created.
func (t *attempt) openWindow() error {
	t.askedAt = 0
	if t.unwatched != "" || t.rec.Mode == verify.Off || t.def.Routed() || len(t.rec.Addrs) == 0 {
		return nil
	}
	// The parent's own question may come back, and must not count as a claim.
	if err := t.tellLocals(nil); err != nil {
		return err
	}
	t.askedAt = verify.Now()
	if err := t.askConflict(); err != nil {
		return err
	}
	t.reached("ask")
	return nil
}

// unrecordedMACs returns those of all, the MACs of links on the parent, with addresses that are not
// in the database: they belong neither to an attachment with addresses nor to the host. They are
// macvlans of other programs, macvlans nested in containers, and remains of containers that are
// ending.
func (l *Local) unrecordedMACs(
	ctx context.Context, def *network.Definition, p link.Parent, all []ether.MAC,
) (macs []ether.MAC, err error) {
	macs = []ether.MAC{}
	if len(all) == 0 {
		return macs, nil
	}
	own, err := l.hostMACsOn(def)
	if err != nil {
		return nil, err
	}
	err = l.DB.View(ctx, func(tx record.Tx) error {
		for _, mac := range all {
			if slices.Contains(own, mac) || slices.Contains(macs, mac) || mac == p.MAC {
				continue
			}
			if known, err := hasAddresses(tx, p.TrunkIndex, mac); err != nil {
				return err
			} else if !known {
				macs = append(macs, mac)
			}
		}
		return nil
	})
	return macs, err
}

// hasAddresses reports whether a MAC on the trunk with an ifindex belongs to an attachment, and its
// addresses are in the database. They are not if the workload configures its own.
func hasAddresses(tx record.Tx, trunk int, mac ether.MAC) (bool, error) {
	recs, err := record.ByMAC(tx, trunk, mac)
	return slices.ContainsFunc(recs, func(a hook.Attachment) bool { return len(a.Addrs) > 0 }), err
}

// hostMACsOn returns the MACs of the host's own links on the network and, if it shares its parent,
// on all others.
func (l *Local) hostMACsOn(def *network.Definition) ([]ether.MAC, error) {
	defs := []*network.Definition{def}
	if def.ShareParent {
		defs, _ = network.LoadAll(l.Networks)
	}
	return l.HostMACs(defs)
}

// claimants returns the claimants that the trunk program has seen since the attach last waited for
// one. In a later verification, probes do not count as claims. On an error it returns none, because
// the prober also hears claimants.
func (v *verification) claimants() []verify.Claimant {
	list, err := v.Datapath.Claimants(v.rec.Endpoint)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(c verify.Claimant) bool {
		return c.At <= v.ignoreUntil || c.Probing && v.configured
	})
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
	f.Claimants = slices.DeleteFunc(t.claimants(), func(c verify.Claimant) bool {
		return slices.Contains(t.proxies, c.MAC)
	})
	if len(f.Claimants) == 0 {
		return nil
	}
	if excused, err := t.excused(ctx, f); err != nil || excused {
		return err
	}
	if c := f.Claimants[0]; !t.claimsRequested(c) {
		return errors.Join(&lateConflict{c}, t.WithStore(ctx, t.rec.Leases, func(in ipam.Store) error {
			return t.declineLease(ctx, in, t.addrToDecline(c))
		}))
	}
	if err := t.judge(ctx, f); err != nil {
		return err
	}
	return &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
}

// claimsRequested reports whether the claimant has the address or MAC that the container requested.
func (t *attempt) claimsRequested(c verify.Claimant) bool {
	if c.SameMAC && !t.want.MAC.IsZero() || len(t.rec.Addrs) == 0 {
		return true
	}
	return slices.Contains(t.want.Addrs, t.addrToDecline(c))
}

// addrToDecline returns the address to decline because of a claimant: the one that it claims or, if
// it has the interface's MAC, the first one, from which the MAC is derived.
func (t *attempt) addrToDecline(c verify.Claimant) netip.Addr {
	if c.SameMAC || !c.Addr.IsValid() {
		return t.rec.Addrs[0].Addr()
	}
	return c.Addr
}

// lastFrames is how long frames of a container that has ended on another trunk of this host may
// still arrive on this one.
const lastFrames = 10 * time.Second

// movedFromTrunk reports whether a container of this host had the MAC on another trunk until a
// moment ago: then the frames with the MAC were that container's last ones. It waits until the
// container's link is gone.
func (t *attempt) movedFromTrunk(ctx context.Context) (bool, error) {
	ended, err := t.Datapath.Ended(t.rec.Endpoint)
	if err != nil {
		return false, err
	}
	moved := ended != 0 && verify.Now().Sub(ended) < lastFrames
	elsewhere := func(index int) bool { return !slices.Contains(t.parent.Chain, index) }
	found, err := t.waitUntilGone(ctx, 0, t.rec.MAC, elsewhere)
	if err != nil || found == macStays {
		return false, err
	}
	if !moved && found == macAbsent || time.Now().After(t.ending.deadline) {
		return false, nil
	}
	t.ignoreUntil = verify.Now()
	return true, nil
}

// HostClaimants returns a claimant for each address of the attachment that this host itself has, on
// any link.
func (l *Local) HostClaimants(a hook.Attachment) (list []verify.Claimant, err error) {
	addrs, err := l.Host.HostAddrs()
	if err != nil {
		return nil, err
	}
	for _, p := range a.Addrs {
		for _, h := range addrs {
			if h.Addr != p.Addr() {
				continue
			}
			name, mac, err := l.Host.HostLinkAt(h.Index)
			if err != nil {
				return nil, err
			}
			list = append(list, verify.Claimant{Addr: h.Addr, MAC: mac, At: verify.Now(), Count: 1, Link: name})
		}
	}
	return list, nil
}

// HostLinkOf returns the name of this host's link that has an address, "" if none has it.
func (l *Local) HostLinkOf(a netip.Addr) (name string, err error) {
	addrs, err := l.Host.HostAddrs()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(addrs, func(h link.HostAddr) bool { return h.Addr == a })
	if i < 0 {
		return "", nil
	}
	name, _, err = l.Host.HostLinkAt(addrs[i].Index)
	return name, err
}

// checkNotHosts returns an error if an address was added to a link of this host since it was
// claimed.
func (t *attempt) checkNotHosts() error {
	claims, err := t.HostClaimants(t.rec)
	if err != nil || len(claims) == 0 {
		return err
	}
	return fmt.Errorf("address %s was added to %q of this host during the attach: start the container again",
		claims[0].Addr, claims[0].Link)
}

// reserveHosts adds the host's own addresses to those that the pool must not assign: the host is a
// station on the LAN, too, but does not answer probes from itself.
func (l *Local) reserveHosts(reserved map[netip.Addr]string, subnet netip.Prefix, host []link.HostAddr) error {
	for _, h := range host {
		if !subnet.Contains(h.Addr) || reserved[h.Addr] != "" {
			continue
		}
		name, _, err := l.Host.HostLinkAt(h.Index)
		if err != nil {
			return err
		}
		reserved[h.Addr] = fmt.Sprintf("host's own, on %q", name)
	}
	return nil
}
