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
	var f verify.Findings
	if err := t.asking(func(index int, name string) (err error) {
		f, err = t.again(ctx, index, name)
		return err
	}); err != nil {
		return nil, err
	}
	if err := t.judge(f); err != nil {
		return nil, err
	}
	return t.rec.Verdicts, nil
}

// again is a round with an exact prober, which reads every answer itself: two
// that answer for one address are both heard. Off a start's path, its packet
// socket costs nobody anything.
func (t *attempt) again(ctx context.Context, index int, name string) (f verify.Findings, err error) {
	p, _, err := t.Probers.Exact(index, t.rec.MAC)
	if err != nil {
		return f, fmt.Errorf("open a prober on %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	plan := t.plan()
	plan.Witness = nil // the trunk's rivals since the attach are in Evidence, and are not news
	plan.Window = max(plan.Window, 100*time.Millisecond)
	return verify.Round(ctx, p, plan)
}
