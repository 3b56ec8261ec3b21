package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// Evidence is what the trunk has seen of an attachment up to now.
func (l *Local) Evidence(a Attachment) (verify.Evidence, error) {
	return l.Datapath.Evidence(a.Endpoint)
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
	t := &attempt{Local: l, def: def, ns: ns, rec: a}
	if t.parent, err = l.Parent(def); err != nil {
		return nil, err
	}
	if len(a.Addrs) == 0 || def.Routed() {
		return []verify.Verdict{a.Verdict}, nil // nobody to ask, as at the start
	}
	t.blind = l.watchFor(def, t.parent)
	f, err := t.againUnlessProxied(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.judge(f); err != nil {
		return nil, err
	}
	if err := t.confirm(ctx, f); err != nil {
		return nil, err
	}
	return t.rec.Verdicts, nil
}

// againUnlessProxied repeats the round where its rival was none.
func (t *attempt) againUnlessProxied(ctx context.Context) (f verify.Findings, err error) {
	for {
		if f, err = t.again(ctx); err != nil || len(f.Rivals) == 0 {
			return f, err
		}
		proxy, err := t.proxied(ctx, f)
		if err != nil {
			return f, err
		}
		if !proxy {
			return t.others(ctx, f)
		}
	}
}

// others asks on for the gateways that a rival has nothing to do with: the round
// ended when it showed itself.
func (t *attempt) others(ctx context.Context, f verify.Findings) (verify.Findings, error) {
	plan := t.patient(ctx)
	plan.Addrs, plan.Gateways = nil, nil
	for _, g := range t.rec.Gateways {
		if len(t.rivalsOf(f, g)) == 0 {
			plan.Gateways = append(plan.Gateways, g)
		}
	}
	if len(plan.Gateways) == 0 {
		return f, nil
	}
	more, err := t.ask(ctx, plan)
	t.controlled(more, plan)
	more.Asked, more.Rivals = f.Asked, f.Rivals
	return more, err
}

// again is a round that takes its time. The trunk's rivals since the attach are in
// Evidence, and are not news.
func (t *attempt) again(ctx context.Context) (f verify.Findings, err error) {
	plan := t.patient(ctx)
	f, err = t.ask(ctx, plan)
	t.controlled(f, plan)
	return f, err
}

func (t *attempt) patient(ctx context.Context) verify.Plan {
	plan := t.plan()
	plan.Witness = nil
	plan.Window = max(plan.Window, 100*time.Millisecond)
	plan.Doubt, plan.Direct = t.doubt(ctx), t.direct()
	return plan
}

// ask is a round from where the container's questions come from, with an exact
// prober. It may be long after the last one: the watch is made sure of again.
func (t *attempt) ask(ctx context.Context, plan verify.Plan) (f verify.Findings, err error) {
	if t.blind == "" {
		t.blind = t.watch(t.parent.TrunkIndex)
	}
	err = t.asking(func(index int, name string) error {
		f, err = t.exactly(ctx, index, name, t.rec.MAC, plan)
		return err
	})
	return f, err
}

// exactly is a round with an exact prober, which reads every answer itself: two
// that answer for one address are both heard. Off a start's path, its packet
// socket costs nobody anything. It runs inside the link's namespace.
func (t *attempt) exactly(ctx context.Context, index int, name string, mac verify.MAC, plan verify.Plan) (f verify.Findings, err error) {
	p, _, err := t.Probers.Exact(index, mac)
	if err != nil {
		return f, fmt.Errorf("open a prober on %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return verify.Round(ctx, p, plan)
}
