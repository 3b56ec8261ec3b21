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
	"maps"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/rebuild"
	"github.com/lanyard-net/lanyard/hook/record"
)

// undoTimeout limits the undo of a failed attach. It starts when the undo starts, because the
// caller's deadline may be over.
const undoTimeout = 5 * time.Second

// Local attaches and detaches in the calling process. It implements [hook.Attacher] for root, and
// [hook.CallerAttacher] for the callers of a broker.
type Local struct {
	*rebuild.Rebuilder
}

// New returns a Local for the host of p.
func New(p *parts.Parts) *Local { return &Local{&rebuild.Rebuilder{Parts: p}} }

var _ hook.Attacher = (*Local)(nil)

// Attach implements [hook.Attacher]. On an error, it undoes all steps before it returns. It returns a
// *Refusal if the verdict is fatal, and wraps link.ErrExited if the container's process has
// exited, link.ErrHostNetns if it is in the host's namespace, and hook.ErrGone if a sweep removed the
// record. It does not check privileges and never returns ErrUnprivileged.
func (l *Local) Attach(ctx context.Context, r hook.Request) (got []hook.Attachment, err error) {
	ns, err := l.Host.OpenNetns(r.Pid)
	if errors.Is(err, link.ErrHostNetns) && r.Pod != (hook.Pod{}) {
		return nil, fmt.Errorf("pod %q: hostNetwork is true, and Lanyard adds no interface to the host's network: "+
			"remove hostNetwork, or the annotations io.lanyard.* of the pod", r.Pod)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", r.Container, err)
	}
	defer ns.Close()
	return l.attachAll(ctx, r, ns, nil)
}

// attachAll creates all interfaces of a request in the namespace. by is the caller without
// privilege, nil for root.
func (l *Local) attachAll(ctx context.Context, r hook.Request, ns *link.Netns, by *hook.Caller) (got []hook.Attachment, err error) {
	id, err := parts.NetnsOf(ns)
	if err != nil {
		return nil, err
	}
	r.Trace.Mark("namespace")
	defaults := claimedDefaults(r)
	var fresh []hook.Attachment
	for _, w := range r.Wants {
		a, created, err := l.attachWant(ctx, attempt{Local: l, want: w, ns: ns, r: r, caller: by, noDefault: defaults}, id)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("network %q: %w", w.Network, err), l.undo(ctx, r, fresh...))
		}
		got = append(got, a)
		if created {
			fresh = append(fresh, a)
		}
		for _, g := range a.Defaults {
			defaults[hook.FamilyOf(g)] = true
		}
	}
	return got, nil
}

// attachWant attaches one interface. After a late conflict it starts again with another address:
// another host has started a container with the same address at the same time. fresh is false if
// the namespace already had the interface.
func (l *Local) attachWant(ctx context.Context, t attempt, id hook.Netns) (rec hook.Attachment, fresh bool, err error) {
	for range maxCandidates {
		rec, fresh, err = l.attach(ctx, t, id)
		var late *lateConflict
		if !errors.As(err, &late) {
			break
		}
		t.pickRandom = true // in the same order, both hosts would choose the same address again
	}
	return rec, fresh, err
}

// claimedDefaults returns the families in which an interface without a default-route setting leaves
// the default route alone: both if any interface of the request asks for the default routes.
// attachAll adds the families of default routes that an earlier interface has taken.
func claimedDefaults(r hook.Request) map[hook.Family]bool {
	requested := slices.ContainsFunc(r.Wants, func(w hook.Want) bool { return w.Default != nil && *w.Default })
	return map[hook.Family]bool{hook.IPv4: requested, hook.IPv6: requested}
}

// familiesWithoutDefault returns the families in which the interface gets no default route.
func (t *attempt) familiesWithoutDefault() map[hook.Family]bool {
	both := map[hook.Family]bool{hook.IPv4: true, hook.IPv6: true}
	switch requested := t.want.Default; {
	case t.clusterHasDefault():
		return both // the author of the pod cannot change that
	case requested == nil:
		return maps.Clone(t.noDefault)
	case *requested:
		return nil
	}
	return both
}

// attach creates one interface in the namespace, or joins the attachment of the one that it has.
// On an error, it undoes its record. fresh is false if the namespace already had the interface.
func (l *Local) attach(ctx context.Context, t attempt, id hook.Netns) (rec hook.Attachment, fresh bool, err error) {
	t.stamp = network.StampOf(l.Networks, t.want.Network)
	if t.def, err = network.Load(l.Networks, t.want.Network); err != nil {
		if t.caller != nil {
			err = refuseCaller("%w", err)
		}
		return rec, false, err
	}
	if err := authorize(t.caller, t.def, t.want); err != nil {
		return rec, false, err
	}
	if err := mayUse(t.def, t.r.Pod); err != nil {
		return rec, false, err
	}
	if t.guarded, err = needsGuard(t.caller, t.def); err != nil {
		return rec, false, err
	}
	t.noDefault = t.familiesWithoutDefault()
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

// mayUse returns an error if the network does not list the Kubernetes namespace of the pod: any
// author of a pod can set io.lanyard. annotations. The engine names the Kubernetes namespace, not
// the author (hook/oci, originOf).
func mayUse(def *network.Definition, p hook.Pod) error {
	if p == (hook.Pod{}) || p.Namespace != "" && def.MayPod(p.Namespace) {
		return nil
	}
	return fmt.Errorf("pods of the Kubernetes namespace %q may not use it: list the namespace (--allow-namespace)",
		p.Namespace)
}

// undo releases the attachments of one request in reverse order, also if the caller's deadline is
// over. If another container of the namespace has joined an attachment since, undo only drops the
// reference of the request's container.
func (l *Local) undo(ctx context.Context, r hook.Request, recs ...hook.Attachment) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for i := len(recs) - 1; i >= 0; i-- {
		err = errors.Join(err, l.undoOne(ctx, r, recs[i]))
	}
	return err
}

// undoOne drops the reference of the request's container to an attachment, and releases the
// attachment if no reference remains.
func (l *Local) undoOne(ctx context.Context, r hook.Request, rec hook.Attachment) error {
	// If the row is missing, the database was lost, and the resources still exist.
	t := &detaching{rec, rec.State}
	err := l.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, rec.ID)
		if errors.Is(err, hook.ErrGone) {
			return nil
		}
		if err == nil {
			t, err = dropReferences(tx, row, func(c hook.Container) bool { return c.ID == r.Container })
		}
		if t != nil {
			t.Attachment = rec // has fields that are not in the row yet
		}
		return err
	})
	if t == nil || err != nil {
		return err
	}
	return l.drop(ctx, *t)
}

// reached ends a step of an attach. It is also a failpoint with the name of the step.
func (t *attempt) reached(step string) {
	t.r.Trace.Mark(step)
	failpoint.At(step)
}
