package hook

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// wire asks the questions of one round from inside the namespace, and puts
// the addresses on where nobody else holds them. A rival comes back in the
// findings; the addresses are then not on.
func (t *attempt) wire(ctx context.Context) (f verify.Findings, err error) {
	err = t.asking(func(index int, name string) error {
		p, a, err := t.Probers.Quick(index, t.rec.MAC, t.blind == "")
		if err != nil {
			return fmt.Errorf("open a prober on %q: %w", name, err)
		}
		// Closing takes the candidates' neighbour entries away, which has to
		// be before the addresses go on.
		plan := t.plan()
		plan.Doubt, plan.Direct = t.doubt(ctx), t.direct()
		f, err = verify.Round(ctx, p, plan)
		t.controls = t.controlled(f, plan)
		if cerr := p.Close(); err == nil {
			err = cerr
		}
		if err != nil || len(f.Rivals) > 0 {
			return err
		}
		t.reached("probe")
		if err := t.configure(); err != nil {
			return err
		}
		err = t.announce(a)
		t.r.Trace.Mark("announce")
		return err
	})
	return f, err
}

// asking runs f where probes are sent from: inside the namespace, on the new
// interface. The kernel hands an ipvlan what is sent to its addresses, and a
// probe's answer is sent to none: with ipvlan it is the parent that asks, whose
// MAC is the interface's.
func (t *attempt) asking(f func(index int, name string) error) error {
	if t.def.Driver == network.DriverIPvlan {
		return t.Host.Do(func() error { return f(t.parent.Index, t.parent.Name) })
	}
	return t.ns.Do(func() error { return f(t.rec.Index, t.rec.Interface) })
}

func (t *attempt) plan() verify.Plan {
	p := verify.Plan{
		Addrs:    t.addrs(),
		Gateways: t.rec.Gateways,
		Window:   time.Duration(t.def.ConflictWindow),
		Deadline: time.Duration(t.def.Deadline),
		Proxies:  t.proxies,
	}
	if t.blind == "" {
		p.Witness = t.rivals
	}
	return p
}

// announcements are how many a start sends: one may be lost. RFC 5227 §2.3
// spaces them by two seconds, which a start cannot wait for.
const announcements = 3

// announce tells the neighbours, which may remember another MAC for the
// address. Nobody has to hear it for the container to work: what drops it here, or
// a link that is down, is the verdict's business.
func (t *attempt) announce(a verify.Announcer) error {
	for range announcements {
		for _, addr := range t.addrs() {
			if err := a.Announce(addr); err != nil && !verify.Dropped(err) {
				return fmt.Errorf("announce %s: %w", addr, err)
			}
		}
	}
	return nil
}

// rivals are those that the trunk has seen. No evidence, no witness: what the
// prober hears still counts.
func (t *attempt) rivals() []verify.Rival {
	e, err := t.Datapath.Evidence(t.rec.Endpoint)
	if err != nil {
		return nil
	}
	return e.Rivals
}

// judge joins what was answered with what the trunk saw: a verdict for each
// gateway, or one for the link where there is none.
func (t *attempt) judge(f verify.Findings) error {
	facts := verify.Facts{
		Parent: t.parent.Name, Trunk: t.parent.Trunk, Tags: t.rec.Endpoint.Tags, MAC: t.rec.MAC,
		Asked: f.Asked, Now: f.Ended, Rivals: f.Rivals, Blind: t.blind,
		Local: t.isLocal, Proxies: t.proxies,
	}
	var err error
	if facts.Down, err = t.Host.Down(t.parent); err != nil {
		return err
	}
	if t.blind == "" {
		e, err := t.Datapath.Evidence(t.rec.Endpoint)
		if err != nil {
			return fmt.Errorf("read evidence from trunk %q: %w", t.parent.Trunk, err)
		}
		t.rec.Evidence, facts.VLANs = &e, e.VLANs
	}
	t.rec.Verdicts, t.indirect = nil, nil
	for i, g := range t.targets() {
		each := facts
		if len(t.rec.Gateways) > 0 {
			each.Gateway, each.Answer, each.Probes, each.Control = g, f.Gateways[g], f.Probes[g], t.controls[g]
		}
		if t.rec.Evidence != nil {
			each.Seen = &t.rec.Evidence.Gateways[i]
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

// isLocal reports whether a MAC is this host's. On a VLAN parent siblings
// never show on the trunk, so only an untagged parent's list has to be read:
// there the trunk's ingress sees them.
func (t *attempt) isLocal(mac verify.MAC) bool {
	if mac == verify.MACOf(t.parent.MAC) {
		return true
	}
	if len(t.parent.Tags) > 0 {
		return false
	}
	macs, err := t.Host.ParentUnicast(t.parent.Index)
	if err != nil {
		return false
	}
	for _, m := range macs {
		if verify.MACOf(m) == mac {
			return true
		}
	}
	return false
}
