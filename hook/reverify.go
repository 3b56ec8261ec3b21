package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Evidence is what the trunk has seen of an attachment up to now, and whether this host
// has taken one of its addresses.
func (l *Local) Evidence(a Attachment) (verify.Evidence, error) {
	e, err := l.Datapath.Evidence(a.Endpoint)
	if err != nil {
		return e, err
	}
	host, err := l.hostClaimants(a)
	e.Claimants = append(e.Claimants, host...)
	return e, err
}

// Verify asks the gateways of an attachment again, now, from inside its
// namespace and with the same MAC, and judges the answers. Its addresses are
// asked for as well: a rival may have come later. The record is not changed.
// Anybody can run it at any time beside the container's own traffic.
func (l *Local) Verify(ctx context.Context, a Attachment) ([]verify.Verdict, error) {
	def, err := network.Load(l.Networks, a.Network)
	if err != nil {
		return nil, err
	}
	ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
	if err != nil {
		return nil, err
	}
	if ns == nil {
		return nil, fmt.Errorf("%q of network %q: its namespace is gone: \"lanyard gc\" takes the record away", a.Interface, a.Network)
	}
	defer ns.Close()
	t := &attempt{Local: l, def: def, ns: ns, rec: a, configured: true}
	if t.parent, err = l.Parent(def); err != nil {
		return nil, err
	}
	t.unwatched = l.watchNetwork(def, t.parent)
	if len(a.Addrs) == 0 || def.Routed() {
		return t.verdictWithoutRound(), nil
	}
	if t.hostState, err = t.readHostState(ctx); err != nil {
		return nil, err
	}
	f, err := t.repeatUnlessProxy(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.addUnheard(&f); err != nil {
		return nil, err
	}
	if err := t.judge(ctx, f); err != nil {
		return nil, err
	}
	if err := t.confirm(ctx, f); err != nil {
		return nil, err
	}
	return t.rec.Verdicts, nil
}

// verdictWithoutRound is that of the start, where there is no station to ask, unless
// another one has shown since that it has the MAC.
func (t *attempt) verdictWithoutRound() []verify.Verdict {
	if r := t.recentDuplicate(); r != nil {
		return []verify.Verdict{verify.Judge(verify.Facts{Parent: t.parent.Name, Trunk: t.parent.Trunk, Tags: t.rec.Endpoint.Tags, MAC: t.rec.MAC, Claimants: []verify.Claimant{*r}})}
	}
	return []verify.Verdict{t.rec.Verdict}
}

// addUnheard adds to a round's rivals those that it cannot hear: this host itself, and a
// station with the same MAC that was not asked for what it has.
func (t *attempt) addUnheard(f *verify.Findings) error {
	host, err := t.hostClaimants(t.rec)
	f.Claimants = append(f.Claimants, host...)
	if r := t.recentDuplicate(); r != nil && !slices.ContainsFunc(f.Claimants, func(r verify.Claimant) bool { return r.SameMAC }) {
		f.Claimants = append(f.Claimants, *r)
	}
	return err
}

// duplicateFor is how long a frame of another station with the same MAC shows that it is
// there: as long as any frame shows that a VLAN is alive.
const duplicateFor = time.Minute

// duplicate gives the station that has shown since the start that it has the MAC, nil if
// none has within the last minute.
func (t *attempt) recentDuplicate() *verify.Claimant {
	if t.unwatched != "" {
		return nil
	}
	now, err := t.Datapath.Evidence(t.rec.Endpoint)
	if err != nil {
		return nil // not watched until a moment ago
	}
	var then verify.Evidence
	if t.rec.Evidence != nil {
		then = *t.rec.Evidence
	}
	recent := slices.ContainsFunc(verify.Anomalies(then, now), func(a verify.Anomaly) bool { return a.Kind == verify.SameMAC })
	i := slices.IndexFunc(now.Claimants, func(r verify.Claimant) bool {
		return r.SameMAC && verify.Now().Sub(r.At) < duplicateFor
	})
	if !recent || i < 0 {
		return nil
	}
	return &now.Claimants[i]
}

// againUnlessProxied repeats the round where its rival was none.
func (t *attempt) repeatUnlessProxy(ctx context.Context) (f verify.Findings, err error) {
	for {
		if f, err = t.repeatRound(ctx); err != nil || len(f.Claimants) == 0 {
			return f, err
		}
		proxy, err := t.isProxy(ctx, f)
		if err != nil {
			return f, err
		}
		if !proxy {
			return t.askOtherGateways(ctx, f)
		}
	}
}

// others asks on for the gateways that a rival has nothing to do with: the round
// ended when it showed itself.
func (t *attempt) askOtherGateways(ctx context.Context, f verify.Findings) (verify.Findings, error) {
	plan := t.patientPlan(ctx)
	plan.Addrs, plan.Witness, plan.Gateways = nil, nil, nil
	for _, g := range t.rec.Gateways {
		if len(t.claimantsOf(f, g)) == 0 {
			plan.Gateways = append(plan.Gateways, g)
		}
	}
	if len(plan.Gateways) == 0 {
		return f, nil
	}
	more, err := t.ask(ctx, plan)
	t.finishControl(more, plan)
	more.Asked, more.Claimants = f.Asked, f.Claimants
	return more, err
}

// again is a round that takes its time. The trunk's rivals before it are in Evidence,
// and are not news.
func (t *attempt) repeatRound(ctx context.Context) (f verify.Findings, err error) {
	t.ending.ignoreUntil = verify.Now()
	plan := t.patientPlan(ctx)
	f, err = t.ask(ctx, plan)
	t.finishControl(f, plan)
	return f, err
}

func (t *attempt) patientPlan(ctx context.Context) verify.Plan {
	plan := t.plan()
	plan.Inside = true // it hears siblings, and off a start's path costs them nothing
	plan.Window = max(plan.Window, 100*time.Millisecond)
	plan.Doubt, plan.Direct = t.startControl(ctx), t.directAddr()
	return plan
}

// ask is a round from where the container's questions come from, with an exact
// prober. It may be long after the last one: the watch is made sure of again.
func (t *attempt) ask(ctx context.Context, plan verify.Plan) (f verify.Findings, err error) {
	if t.unwatched == "" {
		t.unwatched = t.watchTrunk(t.parent.TrunkIndex)
	}
	err = t.onProbeLink(func(index int, name string) error {
		f, err = t.exactRound(ctx, index, name, t.rec.MAC, plan)
		return err
	})
	return f, err
}

// exactly is a round with an exact prober, which reads every answer itself: two
// that answer for one address are both heard. Off a start's path, its packet
// socket costs nobody anything. It runs inside the link's namespace.
func (t *attempt) exactRound(ctx context.Context, index int, name string, mac verify.MAC, plan verify.Plan) (f verify.Findings, err error) {
	p, err := t.Probers.Exact(index, mac)
	if err != nil {
		return f, fmt.Errorf("open a prober on %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return verify.Round(ctx, p, plan)
}
