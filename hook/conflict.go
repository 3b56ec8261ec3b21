package hook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// askConflict asks the LAN, from the parent and with the parent's MAC, whether another
// station has one of the addresses. The trunk sees the answers: they come to the
// parent's MAC, so that a station with the interface's own MAC answers as well. The
// parent's frames do not go to the macvlans on it: those of ours are known by their
// leases, and others are asked from inside (see foreign).
func (t *attempt) askConflict() error {
	mac := verify.MACOf(t.parent.MAC)
	return t.Host.Do(func() error {
		for _, a := range t.addrs() {
			questions := []verify.Question{{Addr: a, Conflict: true}}
			if a.Is6() {
				// To one station the answer passes a card that has not joined all nodes.
				questions = append(questions, verify.Question{Addr: a, Conflict: true, From: mac.ProbeLinkLocal()})
			}
			for _, q := range questions {
				if err := t.Probers.Ask(t.parent.Index, mac, q); err != nil {
					return fmt.Errorf("ask from parent %q: %w", t.parent.Name, err)
				}
			}
		}
		return nil
	})
}

// openWindow asks for the first time, so that the conflict window is open while the
// interface is made.
func (t *attempt) openWindow() error {
	t.askedAt = 0
	if t.unwatched != "" || t.rec.Mode == verify.Off || t.def.Routed() || len(t.rec.Addrs) == 0 {
		return nil
	}
	// The parent's own question may come back: it is to be known as such.
	if err := t.Datapath.Locals(t.parent.TrunkIndex, verify.Locals{Parents: []verify.MAC{verify.MACOf(t.parent.MAC)}}); err != nil {
		return err
	}
	t.askedAt = verify.Now()
	if err := t.askConflict(); err != nil {
		return err
	}
	t.reached("ask")
	return nil
}

// foreign gives the MACs of links on the parent that are no attachment's and not the
// host's own: macvlans that others made, nested ones of containers', and what is left of
// containers that are ending. What addresses they have is not on record.
func (l *Local) unrecordedMACs(ctx context.Context, def *network.Definition, p link.Parent, all []net.HardwareAddr) (macs []verify.MAC, err error) {
	macs = []verify.MAC{}
	if len(all) == 0 {
		return macs, nil
	}
	own, err := l.hostMACsOn(def)
	if err != nil {
		return nil, err
	}
	err = l.DB.View(ctx, func(tx Tx) error {
		for _, m := range all {
			mac := verify.MACOf(m)
			if slices.Contains(own, mac) || slices.Contains(macs, mac) || mac == verify.MACOf(p.MAC) {
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

// hasAddresses reports whether a MAC on a trunk is an attachment's whose addresses are
// on record: not where the workload asks for its own.
func hasAddresses(tx Tx, trunk int, mac verify.MAC) (bool, error) {
	recs, err := find(tx, bucketMACs, macKey(trunk, mac))
	return slices.ContainsFunc(recs, func(a Attachment) bool { return len(a.Addrs) > 0 }), err
}

// hostMACsOn gives the MACs of the host's own links on networks with a network's parent.
func (l *Local) hostMACsOn(def *network.Definition) ([]verify.MAC, error) {
	defs := []*network.Definition{def}
	if def.ShareParent {
		defs, _ = network.LoadAll(l.Networks)
	}
	return l.hostMACs(defs)
}

// rivals are those that the trunk has seen, and that count. No evidence, no witness:
// what the prober hears still counts.
func (t *attempt) claimants() []verify.Claimant {
	list, err := t.Datapath.Claimants(t.rec.Endpoint)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(r verify.Claimant) bool { return r.At <= t.ending.ignoreUntil || r.Probing && t.configured })
}

// A lateConflict is returned where a conflict over an address that was not asked for by
// name shows itself when the address is on already: another host has started at the
// same time. The address is declined; the attach is to be tried again from its
// beginning.
type lateConflict struct{ verify.Claimant }

func (c *lateConflict) Error() string {
	return fmt.Sprintf("address %s was taken by %s at the same time: start the container again", c.Addr, c.MAC.Describe())
}

// late looks for conflicts once more when the addresses are on and announced. Of two
// hosts that start at the same time each has heard the other by now: by its question,
// by the answer to its own, or by its announcement. A conflict over what was asked for by
// name is a [Refusal], any other a [lateConflict].
func (t *attempt) checkLateConflict(ctx context.Context, f verify.Findings) error {
	if t.unwatched != "" {
		return nil
	}
	f.Claimants = slices.DeleteFunc(t.claimants(), func(r verify.Claimant) bool { return slices.Contains(t.proxies, r.MAC) })
	if len(f.Claimants) == 0 {
		return nil
	}
	if none, err := t.excused(ctx, f); err != nil || none {
		return err
	}
	if r := f.Claimants[0]; !t.claimsRequested(r) {
		return errors.Join(&lateConflict{r}, t.declineLease(ctx, t.addrToDecline(r)))
	}
	if err := t.judge(ctx, f); err != nil {
		return err
	}
	return &Refusal{t.rec.Verdict, t.rec.Evidence}
}

// byName reports whether what a rival has was asked for by name.
func (t *attempt) claimsRequested(r verify.Claimant) bool {
	if r.SameMAC && !t.want.MAC.IsZero() || len(t.rec.Addrs) == 0 {
		return true
	}
	return slices.Contains(t.want.Addrs, t.addrToDecline(r))
}

// declinedAddr is the address to give up because of a rival: the one that it has, or the
// first, which the MAC goes with.
func (t *attempt) addrToDecline(r verify.Claimant) netip.Addr {
	if r.SameMAC || !r.Addr.IsValid() {
		return t.rec.Addrs[0].Addr()
	}
	return r.Addr
}

// lastFrames is how long frames of a container that has ended on another trunk of this
// host may still come in by this one.
const lastFrames = 10 * time.Second

// movedHere reports whether a container of this host had the MAC on another trunk until
// a moment ago: then what came in were that one's last frames. It waits until that one's
// link is gone.
func (t *attempt) movedFromTrunk(ctx context.Context) (bool, error) {
	ended, err := t.Datapath.Ended(t.rec.Endpoint)
	if err != nil {
		return false, err
	}
	moved := ended != 0 && verify.Now().Sub(ended) < lastFrames
	there, err := t.waitUntilGone(ctx, 0, t.rec.MAC, func(index int) bool { return !slices.Contains(t.parent.Chain, index) })
	if err != nil || there == macStays {
		return false, err
	}
	if !moved && there == macAbsent || time.Now().After(t.ending.deadline) {
		return false, nil
	}
	t.ending.ignoreUntil = verify.Now()
	return true, nil
}

// hostRivals gives the attachment's addresses that this host itself has, on any link.
func (l *Local) hostClaimants(a Attachment) (list []verify.Claimant, err error) {
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
			list = append(list, verify.Claimant{Addr: h.Addr, MAC: verify.MACOf(mac), At: verify.Now(), Count: 1, Link: name})
		}
	}
	return list, nil
}

// notHosts refuses addresses that the host has taken since they were claimed.
func (t *attempt) checkNotHosts() error {
	rivals, err := t.hostClaimants(t.rec)
	if err != nil || len(rivals) == 0 {
		return err
	}
	return fmt.Errorf("address %s was put on %q of this host during the attach: start the container again", rivals[0].Addr, rivals[0].Link)
}

// reserveHosts adds the host's own addresses to what a pool does not give out: the host
// is a station on the LAN as any other, and cannot be asked over the wire.
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
