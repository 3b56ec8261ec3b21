package hook

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// wire asks the questions of one round from inside the namespace, and puts
// the addresses on where no other station has them. A rival comes back in the
// findings; the addresses are then not on.
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
	if err := t.announceAll(); err != nil {
		return f, err
	}
	t.r.Trace.Mark("announce")
	return f, t.checkLateConflict(ctx, f)
}

// round asks who has the addresses, and the gateways.
func (t *attempt) probe(ctx context.Context) (f verify.Findings, err error) {
	err = t.onProbeLink(func(index int, name string) error {
		p, err := t.Probers.Quick(index, t.rec.MAC, t.unwatched == "")
		if err != nil {
			return fmt.Errorf("open a prober on %q: %w", name, err)
		}
		// Closing takes the candidates' neighbour entries away, which has to
		// be before the addresses go on.
		plan := t.plan()
		plan.Asked, t.askedAt = t.askedAt, 0
		plan.Doubt, plan.Direct = t.startControl(ctx), t.directAddr()
		f, err = verify.Round(ctx, p, plan)
		t.finishControl(f, plan)
		if cerr := p.Close(); err == nil {
			err = cerr
		}
		return err
	})
	if err != nil || len(f.Claimants) > 0 || t.unwatched == "" || t.sharesMAC() {
		return f, err
	}
	return f, t.askBlind(ctx, &f)
}

// askBlind asks from the parent where no program on the trunk hears the answers: by a
// packet socket.
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

// asking runs f where probes are sent from: inside the namespace, on the new
// interface. The kernel hands an ipvlan what is sent to its addresses, and a
// probe's answer is sent to none: with ipvlan it is the parent that asks, whose
// MAC is the interface's.
func (t *attempt) onProbeLink(f func(index int, name string) error) error {
	if t.def.Driver == network.DriverIPvlan {
		return t.Host.Do(func() error { return f(t.parent.Index, t.parent.Name) })
	}
	return t.ns.Do(func() error { return f(t.rec.Index, t.rec.Interface) })
}

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
		p.Witness, p.Ask = t.claimants, t.askConflict
		p.Inside = t.hostState == nil || len(t.hostState.unrecorded) > 0
	}
	return p
}

// announcements are how many a start sends: one may be lost. RFC 5227 §2.3
// spaces them by two seconds, which a start cannot wait for.
const announcements = 3

// announcedHere is how many leave by the interface itself. To siblings on the
// parent the kernel copies each, in the sender's time: a copy is not lost, and one
// is enough. The others go out of the parent, to the LAN alone.
func (t *attempt) ownAnnouncements() int {
	if t.unwatched != "" || t.def.Driver == network.DriverIPvlan {
		return announcements // by a packet socket; by the parent itself
	}
	return 1
}

// announceAll announces the addresses from the interface, and from its parent.
func (t *attempt) announceAll() error {
	err := t.onProbeLink(func(index int, name string) error { return t.announceFrom(index, name, t.ownAnnouncements()) })
	if left := announcements - t.ownAnnouncements(); err == nil && left > 0 {
		err = t.Host.Do(func() error { return t.announceFrom(t.parent.Index, t.parent.Name, left) })
	}
	return err
}

func (t *attempt) announceFrom(index int, name string, times int) error {
	a, err := t.Probers.Announcer(index, t.rec.MAC, t.unwatched == "")
	if err != nil {
		return fmt.Errorf("announce from %q: %w", name, err)
	}
	return t.announce(a, times)
}

// announce tells the neighbours, which may remember another MAC for the
// address. Nobody has to hear it for the container to work: what drops it here, or
// a link that is down, is the verdict's business.
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

// onHost is what a round and its verdict have to know of this host.
type hostState struct {
	down       string // why nothing can pass through the parent
	macs       []net.HardwareAddr
	unrecorded []verify.MAC // those of macs that are no attachment's with leases
}

// lookHere reads it, and tells the trunk which MACs are this host's. Only on the trunk
// itself its ingress sees siblings: where the parent is a VLAN they are not looked for.
func (t *attempt) readHostState(ctx context.Context) (h *hostState, err error) {
	h = &hostState{}
	if h.down, err = t.Host.Down(t.parent); err != nil {
		return nil, err
	}
	if h.macs, err = t.Host.ParentUnicast(t.parent.Index); err != nil {
		return nil, err
	}
	if h.unrecorded, err = t.Local.unrecordedMACs(ctx, t.def, t.parent, h.macs); err != nil {
		return nil, err
	}
	if t.unwatched != "" {
		return h, nil
	}
	locals := verify.Locals{Parents: []verify.MAC{verify.MACOf(t.parent.MAC)}}
	if len(t.parent.Tags) == 0 {
		locals.Siblings = h.unrecorded
	}
	return h, t.Datapath.Locals(t.parent.TrunkIndex, locals)
}

// judge joins what was answered with what the trunk saw: a verdict for each
// gateway, or one for the link where there is none.
func (t *attempt) judge(ctx context.Context, f verify.Findings) error {
	here := t.hostState
	t.hostState = nil // of this round
	if here == nil {
		var err error
		if here, err = t.readHostState(ctx); err != nil {
			return err
		}
	}
	facts := verify.Facts{
		Parent: t.parent.Name, Trunk: t.parent.Trunk, Tags: t.rec.Endpoint.Tags, MAC: t.rec.MAC,
		Asked: f.Asked, Now: f.Ended, Blind: t.unwatched,
		Down: here.down, Local: func(mac verify.MAC) bool { return t.isLocal(here, mac) }, Proxies: t.proxies,
	}
	t.rec.Evidence = nil
	if t.unwatched == "" {
		e, err := t.Datapath.Evidence(t.rec.Endpoint)
		if err != nil {
			return fmt.Errorf("read evidence from trunk %q: %w", t.parent.Trunk, err)
		}
		e.Routers = t.routers
		for _, r := range f.Claimants {
			if r.Probing || r.Link != "" {
				e.Claimants = append(e.Claimants, r) // no claim that the trunk keeps
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
		if each.Unseen() {
			// An error says that the program was taken off meanwhile: the next start
			// or verification puts it back.
			ahead, err := t.Datapath.Ahead(t.parent.TrunkIndex)
			if each.Ahead = ahead; err != nil {
				each.Seen, each.Blind = nil, err.Error()
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

// rivalsOf are those of the addresses that a gateway is there for. One in the other
// family is that family's fault alone, unless that has no gateway to say it.
func (t *attempt) claimantsOf(f verify.Findings, gateway netip.Addr) (list []verify.Claimant) {
	for _, r := range f.Claimants {
		same := func(g netip.Addr) bool { return r.SameMAC || g.Is4() == r.Addr.Is4() }
		if same(gateway) || !slices.ContainsFunc(t.targets(), same) {
			list = append(list, r)
		}
	}
	return list
}

// targets are the addresses whose questions the trunk is watched for: the
// gateways, or the container's own where there is none to ask.
func (t *attempt) targets() []netip.Addr {
	if len(t.rec.Gateways) > 0 {
		return t.rec.Gateways
	}
	return t.addrs()
}

func (t *attempt) addrs() []netip.Addr {
	addrs := make([]netip.Addr, len(t.rec.Addrs))
	for i, p := range t.rec.Addrs {
		addrs[i] = p.Addr()
	}
	return addrs
}

// isLocal reports whether a MAC is this host's.
func (t *attempt) isLocal(here *hostState, mac verify.MAC) bool {
	return mac == verify.MACOf(t.parent.MAC) ||
		slices.ContainsFunc(here.macs, func(m net.HardwareAddr) bool { return verify.MACOf(m) == mac })
}
