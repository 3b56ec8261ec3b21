package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook/hostid"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// undoTimeout limits the undo of a failed attach. It starts when the undo starts, because the
// caller's deadline may be over.
const undoTimeout = 5 * time.Second

// Local implements [Attacher] in the calling process, for the host that Host has the namespace of.
type Local struct {
	Host     *link.Host
	Networks string // directory of definitions
	// HostID returns the key from which MACs are derived.
	HostID func() (hostid.ID, error)
	DB     DB
	Leases ipam.Store
	// Datapath watches trunks.
	Datapath verify.Datapath
	Probers  Probers
	// Guards pass only the frames that carry a lease of a guarded attachment. GuardNetns is the
	// path that the namespace of guarded attachments is pinned at. Guards is nil if this
	// process creates no guards.
	Guards     Guards
	GuardNetns string

	Log *slog.Logger // for problems that fail no call

	rebuilding sync.Mutex
}

// Probers opens probers and announcers. An ifindex is that of an interface in the network
// namespace of the calling thread, and mac is the sender's MAC.
type Probers interface {
	// Quick returns a prober for an attach. watched reports whether the trunk is watched, so
	// that the prober can send through the datapath.
	Quick(ifindex int, mac verify.MAC, watched bool) (verify.Prober, error)
	// Ask sends one question through the datapath. The datapath records the answers.
	Ask(ifindex int, mac verify.MAC, q verify.Question) error
	// Announcer returns an announcer of the MAC's addresses. It sends through the datapath
	// if watched is true.
	Announcer(ifindex int, mac verify.MAC, watched bool) (verify.Announcer, error)
	// Exact returns a prober that reads all answers, also several to one question. Its Close
	// waits for RCU, for up to tens of milliseconds.
	Exact(ifindex int, mac verify.MAC) (verify.Prober, error)
}

var _ Attacher = (*Local)(nil)

// Attach implements [Attacher]. On an error, it undoes all steps before it returns. It returns a
// *Refusal if the verdict is fatal, and wraps link.ErrExited if the container's process has
// exited, link.ErrHostNetns if it is in the host's namespace, and ErrGone if a sweep removed the
// record. It does not check privileges and never returns ErrUnprivileged.
func (l *Local) Attach(ctx context.Context, r Request) (got []Attachment, err error) {
	ns, err := l.Host.OpenNetns(r.Pid)
	if errors.Is(err, link.ErrHostNetns) && r.Pod != (Pod{}) {
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
func (l *Local) attachAll(ctx context.Context, r Request, ns *link.Netns, by *Caller) (got []Attachment, err error) {
	id, err := netnsOf(ns)
	if err != nil {
		return nil, err
	}
	r.Trace.Mark("namespace")
	defaults := claimedDefaults(r)
	var fresh []Attachment
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
			defaults[familyOf(g)] = true
		}
	}
	return got, nil
}

// attachWant attaches one interface. After a late conflict it starts again with another address:
// another host has started a container with the same address at the same time. fresh is false if
// the namespace already had the interface.
func (l *Local) attachWant(ctx context.Context, t attempt, id Netns) (rec Attachment, fresh bool, err error) {
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
func claimedDefaults(r Request) map[family]bool {
	requested := slices.ContainsFunc(r.Wants, func(w Want) bool { return w.Default != nil && *w.Default })
	return map[family]bool{ipv4: requested, ipv6: requested}
}

// familiesWithoutDefault returns the families in which the interface gets no default route.
func (t *attempt) familiesWithoutDefault() map[family]bool {
	both := map[family]bool{ipv4: true, ipv6: true}
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

// netnsOf returns the identity of an open namespace.
func netnsOf(ns *link.Netns) (Netns, error) {
	boot, err := link.BootID()
	return Netns{Boot: boot, Cookie: ns.Cookie, Inode: ns.Inode}, err
}

// attach creates one interface in the namespace, or joins the attachment of the one that it has.
// On an error, it undoes its record. fresh is false if the namespace already had the interface.
func (l *Local) attach(ctx context.Context, t attempt, id Netns) (rec Attachment, fresh bool, err error) {
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
	t.traceStart = t.r.Trace.count()
	if err := t.resolve(); err != nil {
		return rec, false, err
	}
	t.r.Trace.Mark("resolve")
	err = l.withDB(ctx, func() error { return t.recordOrJoin(ctx, id) })
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
func mayUse(def *network.Definition, p Pod) error {
	if p == (Pod{}) || p.Namespace != "" && def.MayPod(p.Namespace) {
		return nil
	}
	return fmt.Errorf("pods of the Kubernetes namespace %q may not use it: list the namespace (--allow-namespace)",
		p.Namespace)
}

// undo releases the attachments of one request in reverse order, also if the caller's deadline is
// over. If another container of the namespace has joined an attachment since, undo only drops the
// reference of the request's container.
func (l *Local) undo(ctx context.Context, r Request, recs ...Attachment) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for i := len(recs) - 1; i >= 0; i-- {
		err = errors.Join(err, l.undoOne(ctx, r, recs[i]))
	}
	return err
}

// undoOne drops the reference of the request's container to an attachment, and releases the
// attachment if no reference remains.
func (l *Local) undoOne(ctx context.Context, r Request, rec Attachment) error {
	// If the row is missing, the database was lost, and the resources still exist.
	t := &detaching{rec, rec.State}
	err := l.DB.Update(ctx, func(tx Tx) error {
		row, err := get(tx, rec.ID)
		if errors.Is(err, ErrGone) {
			return nil
		}
		if err == nil {
			t, err = dropReferences(tx, row, func(c Container) bool { return c.ID == r.Container })
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
