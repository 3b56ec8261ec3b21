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

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/rebuild"
	"github.com/lanyard-net/lanyard/hook/record"
)

// Local attaches and detaches in the calling process. It implements [hook.Attacher] for root, and
// [hook.CallerAttacher] for the callers of a service.
type Local struct {
	*rebuild.Rebuilder
}

// New returns a Local for the host of p.
func New(p *parts.Parts) *Local { return &Local{&rebuild.Rebuilder{Parts: p}} }

var _ hook.Attacher = (*Local)(nil)

// Attach implements [hook.Attacher]. On an error, it undoes all steps before it returns. It returns a
// *Refusal if the verdict is fatal, and wraps netns.ErrExited if the container's process has
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
	var fresh []hook.Attachment
	for _, w := range r.Wants {
		t := attempt{
			verification: verification{Local: l, ns: ns, trace: r.Trace},
			want:         w, r: r, caller: by, noDefault: defaults,
		}
		a, created, err := l.attachWant(ctx, t, id)
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
		if a.SLAAC != nil && a.SLAAC.Default {
			defaults[hook.IPv6] = true
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

// attempt is the attach of one interface: what is asked for, what it has found on the host, and the
// search for an address that no other station has. Its record has what was or will be acquired.
type attempt struct {
	verification

	r      hook.Request
	self   netns.Process // this process
	want   hook.Want
	caller *hook.Caller // the user without privilege that the attach is for; nil: root

	guarded      bool                 // the attachment is guarded
	subnets      []network.Subnet     // one of each family; rec.Addrs is in the same order
	usedNames    []string             // interface names that the namespace and the request have
	loopbackOnly bool                 // the namespace had no link but its loopback
	named        []hook.Attachment    // the namespace's records before usedNames was read
	checked      hook.Attachment      // the attachment that checkJoined has seen last
	noDefault    map[hook.Family]bool // default routes that this interface does not get
	renewing     bool                 // the service would renew a lease of a DHCP server
	replacing    hook.Family          // a running container gets another lease of a DHCP server; 0: it does not
	traceStart   int                  // number of steps in the trace before this attach

	joined      bool // the namespace already had the interface
	recorded    bool // rec is in the database
	link        link.Interface
	hostIfindex int // of the host's own link on the network, 0 for none

	hostAddrs     []link.HostAddr // the host's addresses, read when the addresses were claimed
	macBusy       bool            // another link of the parent has the MAC that belongs to the address
	conflicts     int             // number of rounds with a claimant
	seenClaimants []ether.MAC     // those that have claimed a candidate
	pickRandom    bool            // the search for the next candidate starts at a random address
	ending        endingLink
}

// attach creates one interface in the namespace, or joins the attachment of the one that it has.
// On an error, it undoes its record. fresh is false if the namespace already had the interface.
func (l *Local) attach(ctx context.Context, t attempt, id hook.Netns) (rec hook.Attachment, fresh bool, err error) {
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
	for _, s := range t.want.Sysctls {
		if err := s.Check(t.r.Pod != (hook.Pod{})); err != nil {
			return rec, false, err
		}
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

// run acquires the resources that the intent names, step by step, and commits the attachment. It
// returns a *Refusal if the verdict is fatal. On an error, the caller undoes the record.
func (t *attempt) run(ctx context.Context) error {
	if err := t.prepareLinks(ctx); err != nil {
		return err
	}
	if err := t.checkNamedMAC(); err != nil {
		return err
	}
	if err := t.createWithFreeMAC(ctx); err != nil {
		return err
	}
	if err := t.ns.Do(t.setSysctls); err != nil {
		return err
	}
	if err := t.acquireLeases(ctx); err != nil {
		return err
	}
	if err := t.verifyAndConfigure(ctx); err != nil {
		return err
	}
	if err := t.autoconfigure(ctx); err != nil {
		return err
	}
	if t.rec.Verdict.Code.Fatal(t.rec.Mode) {
		return &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
	}
	if err := t.routeFromHost(); err != nil {
		return err
	}
	return t.commit(ctx)
}

// commit writes the complete attachment to its record. It returns hook.ErrGone if the record was
// removed. If it was an intent, it returns an error if the container has exited: the runtime may have
// been killed during the attach.
func (t *attempt) commit(ctx context.Context) error {
	if err := t.checkNotHosts(); err != nil {
		return err
	}
	if err := t.confirmLeases(ctx); err != nil {
		return err
	}
	if t.unwatched == "" {
		if err := t.Datapath.MarkInUse(t.rec.Endpoint); err != nil {
			return err
		}
	}
	was := t.rec
	t.rec.State, t.rec.Former, t.rec.Timing = hook.Attached, nil, t.r.Trace.Since(t.traceStart)
	if l := t.rec.ServerLease(t.replacing); t.replacing != 0 && l != nil {
		now := *l
		now.Lost = ""
		t.rec.SetServerLease(t.replacing, &now)
	}
	err := t.DB.Update(ctx, func(tx record.Tx) error {
		// Inside the transaction: a poststop before it leaves the record to this process, and
		// a poststop after it finds the attachment. An earlier attachment is removed by poststop
		// and sweep, and the process that its namespace was found by may be any in it.
		if was.State == hook.Attaching && !t.ns.Alive() {
			return fmt.Errorf("container %q exited during the attach", t.r.Container)
		}
		return record.Replace(tx, &t.rec)
	})
	if err != nil {
		t.rec = was
		return err
	}
	t.reached("commit")
	return nil
}

// checkNotHosts returns an error if an address was added to a link of this host since it was
// claimed.
func (t *attempt) checkNotHosts() error {
	claims, err := t.HostClaimants(t.rec)
	if err != nil || len(claims) == 0 {
		return err
	}
	return fmt.Errorf("address %s was added to %q of this host: remove it there, or start the container again",
		claims[0].Addr, claims[0].Link)
}

// reached ends a step of an attach. It is also a failpoint with the name of the step.
func (t *attempt) reached(step string) {
	t.r.Trace.Mark(step)
	failpoint.At(step)
}
