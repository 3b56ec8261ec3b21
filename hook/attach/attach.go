// Package attach attaches containers to the LAN and detaches them: it carries out a [hook.Request] as
// one transaction. Each resource is in the database before it is acquired, so that a sweep can
// release what a crash leaves.
//
// The package decides the order of the steps and the undo of each. Packages hook/link, ipam,
// hook/network and verify implement links, leases, definitions and verdicts.
package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/rebuild"
)

// Local attaches and detaches in the calling process. It implements [hook.Attacher] for root, and
// [hook.CallerAttacher] for the callers of a service.
type Local struct {
	*rebuild.Rebuilder
	outages outages // of stores that hosts share
}

// New returns a Local for the host of p.
func New(p *parts.Parts) *Local { return &Local{Rebuilder: &rebuild.Rebuilder{Parts: p}} }

var _ hook.Attacher = (*Local)(nil)

// Attach implements [hook.Attacher]. On an error, it undoes all steps before it returns. It returns a
// *hook.Refusal if the verdict is fatal, and wraps netns.ErrExited if the container's process has
// exited, netns.ErrHostNetns if it is in the host's namespace, and hook.ErrGone if a sweep removed the
// record. It does not check privileges and never returns ErrUnprivileged.
func (l *Local) Attach(ctx context.Context, r hook.Request) (got []hook.Attachment, err error) {
	ns, err := l.openNetns(r)
	if errors.Is(err, netns.ErrHostNetns) && r.Pod != (hook.Pod{}) {
		return nil, fmt.Errorf("pod %q: hostNetwork is true, and Lanyard adds no interface to the host's network: "+
			"remove hostNetwork, or the annotations io.lanyard.* of the pod", r.Pod)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", r.Container, err)
	}
	defer ns.Close()
	return l.attachAll(ctx, r, ns, nil)
}

// openNetns opens the namespace of a request, by its path or by the container's process.
func (l *Local) openNetns(r hook.Request) (*link.Netns, error) {
	if r.Netns != "" {
		return l.Host.OpenNetnsPath(r.Netns)
	}
	return l.Host.OpenNetns(r.Pid)
}

// attachAll creates all interfaces of a request in the namespace. by is the caller without
// privilege, nil for root.
func (l *Local) attachAll(
	ctx context.Context, r hook.Request, ns *link.Netns, by *hook.Caller,
) (got []hook.Attachment, err error) {
	id, err := parts.NetnsOf(ns)
	if err != nil {
		return nil, err
	}
	r.Trace.Mark("namespace")
	defaults := claimedDefaults(r)
	var createdSoFar []hook.Attachment
	var outage error
	for _, w := range r.Wants {
		t := attempt{
			verification: verification{Local: l, ns: ns, trace: r.Trace, outage: &outage},
			want:         w, r: r, caller: by, noDefault: defaults,
		}
		a, created, err := l.attachWant(ctx, t, id)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("network %q: %w", w.Network, err), l.undo(ctx, r, createdSoFar...))
		}
		got = append(got, a)
		if created {
			createdSoFar = append(createdSoFar, a)
		}
		for _, g := range a.Defaults {
			defaults[hook.FamilyOf(g)] = true
		}
		if a.SLAAC != nil && a.SLAAC.Default {
			defaults[hook.IPv6] = true
		}
	}
	return got, nil
}

// claimedDefaults returns the families in which an interface without a default-route setting leaves
// the default route alone: both if any interface of the request asks for the default routes.
// attachAll adds the families of default routes that an earlier interface has taken.
func claimedDefaults(r hook.Request) map[hook.Family]bool {
	requested := slices.ContainsFunc(r.Wants, func(w hook.Want) bool { return w.Default != nil && *w.Default })
	return map[hook.Family]bool{hook.IPv4: requested, hook.IPv6: requested}
}

// attachWant attaches one interface. After a late conflict it starts again with another address:
// another host has started a container with the same address at the same time. created is false if
// the namespace already had the interface.
func (l *Local) attachWant(
	ctx context.Context, t attempt, id hook.Netns,
) (rec hook.Attachment, created bool, err error) {
	for range maxCandidates {
		rec, created, err = l.attach(ctx, t, id)
		var late *lateConflict
		if !errors.As(err, &late) {
			break
		}
		t.pickRandom = true // in the same order, both hosts would choose the same address again
	}
	return rec, created, err
}

// attach creates one interface in the namespace, or joins an existing attachment: created is false then.
// On an error, it undoes the record. t is a copy, so that the next try begins with the same values.
func (l *Local) attach(ctx context.Context, t attempt, id hook.Netns) (rec hook.Attachment, created bool, err error) {
	if err := t.loadNetwork(); err != nil {
		return rec, false, err
	}
	t.r.Trace.Mark("definition")
	t.traceStart = t.r.Trace.Count()
	if err := t.resolve(); err != nil {
		return rec, false, err
	}
	t.r.Trace.Mark("resolve")
	err = l.WithDB(ctx, func() error { return t.recordOrJoin(ctx, id) })
	if err == nil && !t.joined {
		err = t.run(ctx)
	}
	if err != nil && t.recorded {
		err = errors.Join(err, l.undo(ctx, t.r, t.rec))
	}
	return t.rec, !t.joined, err
}

// run acquires the resources that the intent names, step by step, and commits the attachment. It
// returns a *Refusal if the verdict is fatal. On an error, the caller undoes the record.
func (t *attempt) run(ctx context.Context) error {
	if err := t.createInterface(ctx); err != nil {
		return err
	}
	if t.def.AsksServers() {
		if err := t.acquireLeases(ctx); err != nil {
			return err
		}
	}
	if err := t.verifyAndConfigure(ctx); err != nil {
		return err
	}
	if t.rec.SLAAC != nil {
		if err := t.autoconfigure(ctx); err != nil {
			return err
		}
	}
	if t.rec.Verdict.Code.Fatal(t.rec.Mode) {
		return t.refusal()
	}
	if err := t.routeFromHost(ctx); err != nil {
		return err
	}
	return t.commit(ctx)
}

// refusal returns the refusal for the verdict of the record. Without a round of probes, its evidence is what
// the trunk has seen by now.
func (t *attempt) refusal() *hook.Refusal {
	r := &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
	if r.Evidence == nil && t.unwatched == "" {
		if e, err := t.Datapath.Evidence(t.rec.Endpoint); err == nil {
			r.Evidence = &e
		}
	}
	return r
}
