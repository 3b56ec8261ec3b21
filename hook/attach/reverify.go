package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/verify"
)

// Evidence returns what the trunk program has seen of an attachment up to now. If this host has one
// of its addresses, that is a claimant.
func (l *Local) Evidence(a hook.Attachment) (verify.Evidence, error) {
	e, err := l.Datapath.Evidence(a.Endpoint)
	if err != nil {
		return e, err
	}
	host, err := l.HostClaimants(a)
	e.Claimants = append(e.Claimants, host...)
	return e, err
}

// Verify asks the gateways of an attachment again, from inside its namespace and with its MAC, and
// judges the answers. It also asks for the addresses, because a claimant may have come after the
// start. It does not disturb the container's own traffic. If the interface was changed so that traffic
// cannot work, the verdicts are those changes, and it does not ask. If the code of the worst verdict
// differs from the last one, it is recorded, for all that shows verdicts without asking.
func (l *Local) Verify(ctx context.Context, a hook.Attachment) ([]verify.Verdict, error) {
	ns, err := l.Host.FindNetns(a.Netns.Inode, a.Netns.Cookie)
	if err != nil {
		return nil, err
	}
	if ns == nil {
		return nil, fmt.Errorf("%q of network %q: its namespace is gone: \"lanyard gc\" removes the record",
			a.Interface, a.Network)
	}
	defer ns.Close()
	verdicts, err := l.verifyIn(ctx, a, ns)
	if err == nil && len(verdicts) > 0 {
		if err := l.recordVerdict(ctx, &a, verify.Worst(verdicts)); err != nil {
			l.Log.With(a.LogAttrs()...).Warn("cannot record a verdict", "err", err)
		}
	}
	return verdicts, err
}

// recordVerdict records the verdict of a later verification if its code differs from the last one. It
// leaves out what [Local.Now] finds without asking, which would outlast its cause in the record.
func (l *Local) recordVerdict(ctx context.Context, a *hook.Attachment, now verify.Verdict) error {
	switch now.Code {
	case verify.ParentDown, verify.InterfaceChanged, verify.InterfaceGone, verify.LeaseLost:
		return nil
	}
	if last, _ := a.LastVerdict(); last.Code == now.Code {
		return nil
	}
	return l.DB.Update(ctx, func(tx record.Tx) error {
		rec, err := record.Get(tx, a.ID)
		if errors.Is(err, hook.ErrGone) || err == nil && rec.State != hook.Attached {
			return nil // it was detached during the verification
		}
		if err != nil || rec.Index != a.Index || rec.ParentIdx != a.ParentIdx {
			return err // created again, with a verdict of its own
		}
		if last, _ := rec.LastVerdict(); last.Code == now.Code {
			return nil
		}
		rec.Latest = &hook.Later{At: time.Now().UTC(), Verdict: now}
		return record.Replace(tx, &rec)
	})
}

// verifyIn is Verify in the attachment's namespace.
func (l *Local) verifyIn(ctx context.Context, a hook.Attachment, ns *link.Netns) ([]verify.Verdict, error) {
	def, err := network.Load(l.Networks, a.Network)
	if err != nil {
		return nil, err
	}
	broken := verdictsOf(l.changesIn(ns, &a, l.parentNow(&a)))
	// Routers are asked below, and IPv4 works without one.
	broken = slices.DeleteFunc(broken, func(v verify.Verdict) bool { return v.Code == verify.NoRouter })
	if len(broken) > 0 {
		return broken, nil
	}
	v := &verification{Local: l, def: def, ns: ns, rec: a, configured: true}
	// By its ifindex: it works also if it has another name now.
	if v.parent, err = l.Host.ParentAt(a.ParentIdx); err != nil {
		return nil, err
	}
	if def.SharesMAC() {
		v.rec.MAC = v.parent.MAC // which may have changed since the start
	}
	if err := v.watchAgain(ctx); err != nil {
		return nil, err
	}
	if err := v.askAgain(ctx); err != nil || a.SLAAC == nil {
		return v.rec.Verdicts, err
	}
	verdict, _, err := v.awaitAutoconf(ctx, func() error { return nil })
	if err != nil {
		return nil, err
	}
	v.addVerdict(verdict)
	return v.rec.Verdicts, nil
}

// askAgain asks the gateways of an attachment, and asks for its addresses. The verdicts are the record's.
func (v *verification) askAgain(ctx context.Context) (err error) {
	if len(v.rec.Addrs) == 0 || v.def.Routed() {
		v.rec.Verdicts = v.verdictsWithoutRound()
		return nil
	}
	if v.hostState, err = v.refreshHostState(ctx); err != nil {
		return err
	}
	f, err := v.repeatUnlessProxy(ctx)
	if err != nil {
		return err
	}
	if err := v.addUnheard(&f); err != nil {
		return err
	}
	return v.judgeAndConfirm(ctx, f)
}

// watchAgain makes sure that the trunk program runs and watches the endpoint. If the pins
// were removed after the start, the endpoint's row is gone with them, and if the trunk
// could not be watched at the start, there never was one: then its counters begin now. It returns an
// error if the attachment was removed.
func (v *verification) watchAgain(ctx context.Context) error {
	if v.unwatched = v.WatchNetwork(v.def, v.parent); v.unwatched != "" {
		return nil
	}
	if _, err := v.Datapath.Evidence(v.rec.Endpoint); err == nil {
		return nil
	}
	return v.whileAttached(ctx, &v.rec, func(now *hook.Attachment) error {
		if err := errors.Join(v.Datapath.Expect(now.Endpoint), v.Datapath.MarkInUse(now.Endpoint)); err != nil {
			v.unwatched = err.Error()
		}
		return nil
	})
}

// verdictsWithoutRound returns the verdicts for a network without gateways to ask: that of the start,
// unless another station with the same MAC was seen since. That on routers is not repeated: they are
// asked again.
func (v *verification) verdictsWithoutRound() []verify.Verdict {
	if c := v.recentDuplicate(); c != nil {
		return []verify.Verdict{verify.Judge(verify.Facts{
			Parent: v.parent.Name, Trunk: v.parent.Trunk, Tags: v.rec.Endpoint.Tags, MAC: v.rec.MAC,
			Claimants: []verify.Claimant{*c},
		})}
	}
	if v.rec.SLAAC != nil {
		return nil
	}
	return []verify.Verdict{v.rec.Verdict}
}

// addUnheard adds the claimants that a round cannot hear: this host itself, and a station with the
// same MAC that was not asked for its own address.
func (v *verification) addUnheard(f *verify.Findings) error {
	host, err := v.HostClaimants(v.rec)
	f.Claimants = append(f.Claimants, host...)
	sameMAC := func(c verify.Claimant) bool { return c.SameMAC }
	if d := v.recentDuplicate(); d != nil && !slices.ContainsFunc(f.Claimants, sameMAC) {
		f.Claimants = append(f.Claimants, *d)
	}
	return err
}

// duplicateFor is how long a frame of another station with the same MAC counts. It is the time for
// which a frame shows that a VLAN is in use.
const duplicateFor = time.Minute

// recentDuplicate returns the station with the interface's MAC that was seen within duplicateFor
// and since the start, or nil.
func (v *verification) recentDuplicate() *verify.Claimant {
	if v.unwatched != "" {
		return nil
	}
	now, err := v.Datapath.Evidence(v.rec.Endpoint)
	if err != nil {
		return nil // the watch has only just begun
	}
	var then verify.Evidence
	if v.rec.Evidence != nil {
		then = *v.rec.Evidence
	}
	recent := slices.ContainsFunc(verify.Anomalies(then, now), func(a verify.Anomaly) bool {
		return a.Kind == verify.SameMAC
	})
	i := slices.IndexFunc(now.Claimants, func(c verify.Claimant) bool {
		return c.SameMAC && verify.Now().Sub(c.At) < duplicateFor
	})
	if !recent || i < 0 {
		return nil
	}
	return &now.Claimants[i]
}

// repeatUnlessProxy runs rounds until one has no claimant that is a proxy.
func (v *verification) repeatUnlessProxy(ctx context.Context) (f verify.Findings, err error) {
	for {
		if f, err = v.repeatRound(ctx); err != nil || len(f.Claimants) == 0 {
			return f, err
		}
		proxy, err := v.isProxy(ctx, f)
		if err != nil {
			return f, err
		}
		if !proxy {
			return v.askOtherGateways(ctx, f)
		}
	}
}

// askOtherGateways asks the gateways with a verdict that does not depend on the claimant of f,
// because the claim ended the round before they could answer. It returns their answers with the
// claimants of f.
func (v *verification) askOtherGateways(ctx context.Context, f verify.Findings) (verify.Findings, error) {
	plan := v.patientPlan(ctx)
	plan.Addrs, plan.Observed, plan.Gateways = nil, nil, nil
	for _, g := range v.rec.Gateways {
		if len(v.claimantsOf(f, g)) == 0 {
			plan.Gateways = append(plan.Gateways, g)
		}
	}
	if len(plan.Gateways) == 0 {
		return f, nil
	}
	more, err := v.ask(ctx, plan)
	v.finishControl(more, plan)
	more.Asked, more.Claimants = f.Asked, f.Claimants
	return more, err
}

// repeatRound runs a round with the longer window of patientPlan. It ignores claims that the trunk
// saw earlier: Evidence has them.
func (v *verification) repeatRound(ctx context.Context) (f verify.Findings, err error) {
	v.ignoreUntil = verify.Now()
	plan := v.patientPlan(ctx)
	f, err = v.ask(ctx, plan)
	v.finishControl(f, plan)
	return f, err
}

// patientPlan returns a plan for a round that no start waits for.
func (v *verification) patientPlan(ctx context.Context) verify.Plan {
	plan := v.plan()
	plan.FromContainer = true // to hear siblings; their kernel work delays no start here
	plan.Window = max(plan.Window, 100*time.Millisecond)
	plan.OnSilence, plan.Direct = v.startControl(ctx), v.directAddr()
	return plan
}
