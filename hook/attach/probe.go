package attach

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// probeAndConfigure runs one round of probes, and sets and announces the addresses if no other
// station has them. If the findings have a claimant, the addresses are not set. A conflict that is
// detected after the addresses were set is an error, see checkLateConflict.
func (t *attempt) probeAndConfigure(ctx context.Context) (f verify.Findings, err error) {
	if t.hostState, err = t.readHostState(ctx); err != nil {
		return f, err
	}
	if f, err = t.probe(ctx); err != nil || len(f.Claimants) > 0 {
		return f, err
	}
	t.reached("probe")
	if err := t.ns.Do(t.configure); err != nil {
		return f, err
	}
	// On a busy host, that took longer than another host's whole conflict window. Without this
	// check, the announcement would be a conflict for a host that uses the address by now.
	if err := t.checkLateConflict(ctx, f); err != nil {
		return f, err
	}
	if err := t.announceAll(); err != nil {
		return f, err
	}
	t.r.Trace.Mark("announce")
	return f, t.checkLateConflict(ctx, f)
}

// probe runs one round: it asks whether another station has the addresses, and asks the gateways.
func (t *attempt) probe(ctx context.Context) (f verify.Findings, err error) {
	err = t.onProbeLink(func(index int, name string) error {
		p, err := t.Probers.Quick(index, t.rec.MAC, t.unwatched == "")
		if err != nil {
			return fmt.Errorf("open a prober on %q: %w", name, err)
		}
		// Close deletes the candidates' entries in the neighbour table, which must happen
		// before the addresses are set.
		plan := t.plan()
		plan.Asked, t.askedAt = t.askedAt, 0
		plan.OnSilence, plan.Direct = t.startControl(ctx), t.directAddr()
		f, err = verify.Round(ctx, p, plan)
		t.finishControl(f, plan)
		closeErr := p.Close()
		if err != nil {
			return err
		}
		return closeErr
	})
	if err != nil || len(f.Claimants) > 0 || t.unwatched == "" || t.sharesMAC() {
		return f, err
	}
	return f, t.askBlind(ctx, &f)
}

// askBlind asks for conflicts from the parent, through a packet socket, for a trunk that is not
// watched.
func (t *attempt) askBlind(ctx context.Context, f *verify.Findings) error {
	plan := t.plan()
	plan.Gateways = nil
	g, err := t.askAsParent(ctx, plan)
	for i := range g.Claimants {
		g.Claimants[i].SameMAC = g.Claimants[i].MAC == t.rec.MAC
	}
	f.Claimants = g.Claimants
	return err
}

// onProbeLink runs f in the namespace of the link that sends probes, with the link's ifindex and
// name: the new interface in the container's namespace, or the parent if the driver asks from there.
func (t *attempt) onProbeLink(f func(index int, name string) error) error {
	if t.driver().AsksFromParent() {
		return t.Host.Do(func() error { return f(t.parent.Index, t.parent.Name) })
	}
	return t.ns.Do(func() error { return f(t.rec.Index, t.rec.Interface) })
}

// plan returns the plan of a round for the addresses and gateways of the record.
func (t *attempt) plan() verify.Plan {
	p := verify.Plan{
		Addrs:    t.addrs(),
		Held:     t.configured,
		Gateways: t.rec.Gateways,
		Window:   time.Duration(t.def.ConflictWindow),
		Deadline: time.Duration(t.def.Deadline),
		Proxies:  t.proxies,
	}
	if t.unwatched == "" {
		p.Observed, p.Ask = t.claimants, t.askConflict
		p.FromContainer = t.hostState == nil || len(t.hostState.unrecorded) > 0
	}
	return p
}

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
// namespace.
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

// hostState is the state of this host that a round and its verdict depend on.
type hostState struct {
	down       string             // why no frame can pass through the parent; "" if they can
	macs       []net.HardwareAddr // of the links on the parent
	unrecorded []verify.MAC       // those of macs with addresses that are not in the database
}

// readHostState reads the host's state, and tells the datapath which MACs are this host's. The
// ingress of the trunk program sees frames of siblings only if the parent is the trunk itself, so
// it is not told about siblings on a VLAN.
func (t *attempt) readHostState(ctx context.Context) (h *hostState, err error) {
	h = &hostState{}
	if h.down, err = t.Host.Down(t.parent); err != nil {
		return nil, err
	}
	if h.macs, err = t.Host.ParentUnicast(t.parent.Index); err != nil {
		return nil, err
	}
	if h.unrecorded, err = t.unrecordedMACs(ctx, t.def, t.parent, h.macs); err != nil {
		return nil, err
	}
	switch {
	case t.unwatched != "":
		return h, nil
	case len(t.parent.Tags) == 0:
		return h, t.tellLocals(h.unrecorded)
	case t.configured:
		return h, t.tellLocals(nil)
	}
	return h, nil // openWindow has reported the parent's MAC
}

// tellLocals reports the MACs of this host to the trunk program: the parent's, and those of siblings
// if the list is not nil.
func (t *attempt) tellLocals(siblings []verify.MAC) error {
	return t.Datapath.Locals(t.parent.TrunkIndex, verify.Locals{Parents: []verify.MAC{verify.MACOf(t.parent.MAC)}, Siblings: siblings})
}

// judge combines the findings of a round with what the trunk program has seen. It sets the record's
// evidence and verdicts: one for each gateway, or one for the link without a gateway.
func (t *attempt) judge(ctx context.Context, f verify.Findings) error {
	state := t.hostState
	t.hostState = nil // valid for one round
	if state == nil {
		var err error
		if state, err = t.readHostState(ctx); err != nil {
			return err
		}
	}
	facts := verify.Facts{
		Parent: t.parent.Name, Trunk: t.parent.Trunk, Tags: t.rec.Endpoint.Tags, MAC: t.rec.MAC,
		Asked: f.Asked, Now: f.Ended, Unwatched: t.unwatched,
		Down: state.down, Local: func(mac verify.MAC) bool { return t.isLocal(state, mac) }, Proxies: t.proxies,
	}
	t.rec.Evidence = nil
	if t.unwatched == "" {
		e, err := t.Datapath.Evidence(t.rec.Endpoint)
		if err != nil {
			return fmt.Errorf("read evidence from trunk %q: %w", t.parent.Trunk, err)
		}
		e.Routers = t.routers
		for _, c := range f.Claimants {
			if c.Probing || c.Link != "" {
				e.Claimants = append(e.Claimants, c) // the trunk program does not keep these claims
			}
		}
		t.rec.Evidence, facts.VLANs = &e, e.VLANs
	}
	t.rec.Verdicts, t.indirect = nil, nil
	for i, g := range t.targets() {
		each := facts
		each.Claimants = t.claimantsOf(f, g)
		if len(t.rec.Gateways) > 0 {
			each.Gateway, each.Answer, each.Other, each.Probes = g, f.Gateways[g], f.Others[g], f.Probes[g]
			each.Control = t.controls[g]
		}
		if g.Is6() {
			each.Routers = t.routers
		}
		if t.rec.Evidence != nil {
			each.Seen = &t.rec.Evidence.Gateways[i]
		}
		if each.MissedFrames() {
			// An error means that the program was removed during the round. The next start
			// or verification loads it again.
			ahead, err := t.Datapath.Ahead(t.parent.TrunkIndex)
			each.Ahead = ahead
			if err != nil {
				each.Seen, each.Unwatched = nil, err.Error()
			}
		}
		if each.Indirect() {
			t.indirect = append(t.indirect, g)
		}
		t.rec.Verdicts = append(t.rec.Verdicts, verify.Judge(each))
	}
	t.rec.Verdict = verify.Worst(t.rec.Verdicts)
	t.r.Trace.Mark("judge")
	return nil
}

// claimantsOf returns the claimants that belong to the verdict of a gateway: those of addresses in
// its family, those with the interface's MAC, and those in a family without a gateway.
func (t *attempt) claimantsOf(f verify.Findings, gateway netip.Addr) (list []verify.Claimant) {
	for _, c := range f.Claimants {
		same := func(g netip.Addr) bool { return c.SameMAC || g.Is4() == c.Addr.Is4() }
		if same(gateway) || !slices.ContainsFunc(t.targets(), same) {
			list = append(list, c)
		}
	}
	return list
}

// targets returns the addresses that the datapath watches the questions for: the gateways or,
// without any, the container's own addresses.
func (t *attempt) targets() []netip.Addr {
	if len(t.rec.Gateways) > 0 {
		return t.rec.Gateways
	}
	return t.addrs()
}

// addrs returns the addresses of the record.
func (t *attempt) addrs() []netip.Addr {
	addrs := make([]netip.Addr, len(t.rec.Addrs))
	for i, p := range t.rec.Addrs {
		addrs[i] = p.Addr()
	}
	return addrs
}

// isLocal reports whether a MAC is that of the parent or of a link on it.
func (t *attempt) isLocal(state *hostState, mac verify.MAC) bool {
	return mac == verify.MACOf(t.parent.MAC) ||
		slices.ContainsFunc(state.macs, func(m net.HardwareAddr) bool { return verify.MACOf(m) == mac })
}
