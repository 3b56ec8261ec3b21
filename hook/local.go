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

// undoTime bounds taking back what a failed step left, when the caller's own
// time is over.
const undoTimeout = 5 * time.Second

// Local attaches in process, on the host whose namespace Host has open.
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
	// Guards hold guarded attachments to their leases, in the namespace pinned at
	// GuardNetns; nil where none are made.
	Guards     Guards
	GuardNetns string

	Log *slog.Logger // what an operator should know and no caller waits for

	rebuilding sync.Mutex
}

// Probers opens probers and what announces addresses, on an interface of the calling
// thread's network namespace.
type Probers interface {
	// Quick is for a start: watched says that the datapath is there to send
	// through.
	Quick(ifindex int, mac verify.MAC, watched bool) (verify.Prober, error)
	// Ask sends one question through the datapath, from an interface of the calling
	// thread's namespace and with its MAC. What comes back the datapath sees.
	Ask(ifindex int, mac verify.MAC, q verify.Question) error
	// Announcer announces what the MAC has: through the datapath where it is there
	// (watched).
	Announcer(ifindex int, mac verify.MAC, watched bool) (verify.Announcer, error)
	// Exact hears everybody who answers, and takes its time to close.
	Exact(ifindex int, mac verify.MAC) (verify.Prober, error)
}

var _ Attacher = (*Local)(nil)

// Attach implements [Attacher]. What fails is undone before it returns.
func (l *Local) Attach(ctx context.Context, r Request) (got []Attachment, err error) {
	ns, err := l.Host.OpenNetns(r.Pid)
	if errors.Is(err, link.ErrHostNetns) && r.Pod != (Pod{}) {
		return nil, fmt.Errorf("pod %q: hostNetwork is true, and the host's network gets no interface: remove hostNetwork, or the annotations io.lanyard.* of the pod", r.Pod)
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", r.Container, err)
	}
	defer ns.Close()
	return l.attachAll(ctx, r, ns, nil)
}

// attachAll gives the namespace every interface that is wanted, for root or for
// a caller.
func (l *Local) attachAll(ctx context.Context, r Request, ns *link.Netns, by *Caller) (got []Attachment, err error) {
	id, err := netnsOf(ns)
	if err != nil {
		return nil, err
	}
	r.Trace.Mark("namespace")
	defaults := claimedDefaults(r)
	var fresh []Attachment
	for _, w := range r.Wants {
		a, isNew, err := l.attachWant(ctx, attempt{Local: l, want: w, ns: ns, r: r, caller: by, noDefault: defaults}, id)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("network %q: %w", w.Network, err), l.undo(ctx, r, fresh...))
		}
		if got = append(got, a); isNew {
			fresh = append(fresh, a)
		}
		for _, g := range a.Defaults {
			defaults[g.Is4()] = true
		}
	}
	return got, nil
}

// attachWant attaches one interface, and begins again where another host that started
// at the same time has its address.
func (l *Local) attachWant(ctx context.Context, t attempt, id Netns) (rec Attachment, fresh bool, err error) {
	for range maxCandidates {
		rec, fresh, err = l.attach(ctx, t, id)
		var late *lateConflict
		if !errors.As(err, &late) {
			break
		}
		t.pickRandom = true
	}
	return rec, fresh, err
}

// claimedDefaults are those that are none for whoever does not ask: both, where
// one interface asks for them.
func claimedDefaults(r Request) map[bool]bool {
	asked := slices.ContainsFunc(r.Wants, func(w Want) bool { return w.Default != nil && *w.Default })
	return map[bool]bool{true: asked, false: asked}
}

// notFor gives the default routes that the interface does not get.
func (t *attempt) familiesWithoutDefault() map[bool]bool {
	none := map[bool]bool{true: true, false: true}
	switch asked := t.want.Default; {
	case t.clusterHasDefault():
		return none // the author of the pod cannot change that
	case asked == nil:
		return maps.Clone(t.noDefault)
	case *asked:
		return nil
	}
	return none
}

func netnsOf(ns *link.Netns) (Netns, error) {
	boot, err := link.BootID()
	return Netns{Boot: boot, Cookie: ns.Cookie, Inode: ns.Inode}, err
}

// attach gives the namespace one interface, or finds the one that it has.
func (l *Local) attach(ctx context.Context, t attempt, id Netns) (rec Attachment, fresh bool, err error) {
	t.stamp = network.StampOf(l.Networks, t.want.Network)
	if t.def, err = network.Load(l.Networks, t.want.Network); err != nil {
		if t.caller != nil {
			err = refusal("%w", err)
		}
		return rec, false, err
	}
	if err := t.caller.authorize(t.def, t.want); err != nil {
		return rec, false, err
	}
	if err := mayUse(t.def, t.r.Pod); err != nil {
		return rec, false, err
	}
	if t.guarded, err = t.caller.needsGuard(t.def); err != nil {
		return rec, false, err
	}
	t.noDefault = t.familiesWithoutDefault()
	t.r.Trace.Mark("definition")
	t.traceStart = t.r.Trace.count()
	if err := t.resolve(); err != nil {
		return rec, false, err
	}
	t.r.Trace.Mark("resolve")
	err = l.withDB(ctx, func() error { return t.enterDatabase(ctx, id) })
	if err == nil && !t.joined {
		err = t.run(ctx)
	}
	if err != nil && t.recorded {
		err = errors.Join(err, l.undo(ctx, t.r, t.rec))
	}
	return t.rec, !t.joined, err
}

// mayUse refuses pods that the network does not list: any author of a pod sets our
// annotations. The Kubernetes namespace is the engine's word, not the author's; see
// originOf.
func mayUse(def *network.Definition, p Pod) error {
	if p == (Pod{}) || p.Namespace != "" && def.MayPod(p.Namespace) {
		return nil
	}
	return fmt.Errorf("pods of the Kubernetes namespace %q may not use it: list that (--allow-namespace)", p.Namespace)
}

// undo takes back what one request was given although the caller's time may be
// over. What another container of the namespace has joined meanwhile stays, for
// that one.
func (l *Local) undo(ctx context.Context, r Request, recs ...Attachment) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for i := len(recs) - 1; i >= 0; i-- {
		err = errors.Join(err, l.undoOne(ctx, r, recs[i]))
	}
	return err
}

func (l *Local) undoOne(ctx context.Context, r Request, rec Attachment) error {
	// Where the row is gone, the database was lost: what was made is there.
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
			t.Attachment = rec // knows more than the row
		}
		return err
	})
	if t == nil || err != nil {
		return err
	}
	return l.drop(ctx, *t)
}
