package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// recordPoll and recordPollMax are the first and the longest interval between two reads of a
// record that another hook attaches or detaches. There is no event to wait for, because that hook
// may be killed at any moment.
const (
	recordPoll    = 5 * time.Millisecond
	recordPollMax = 50 * time.Millisecond
)

// recordOrJoin records the intent and claims its addresses, or joins the attachment that the
// namespace already has. If another hook attaches the same interface at the moment, it waits for
// the result. If addresses, MACs or the quota are used up, it releases unused attachments once.
func (t *attempt) recordOrJoin(ctx context.Context, id hook.Netns) error {
	self, err := netns.Self()
	if err != nil {
		return err
	}
	t.self = self
	// An earlier run has found the database damaged, and its last transaction may be lost.
	if err := t.startOver(ctx); err != nil {
		return err
	}
	if err := t.readNamesAgain(ctx, id); err != nil {
		return err
	}
	wait, swept := recordPoll, false
	var waitedFor *hook.Attachment
	for {
		other, err := t.tryRecordOrJoin(ctx, id, self)
		if waitedFor != nil && ctx.Err() != nil {
			return stillAttaching(ctx, waitedFor)
		}
		if isExhausted(err) && !swept {
			swept = true
			sweepErr := t.sweepForRoom(ctx)
			if sweepErr == nil {
				continue
			}
			err = errors.Join(err, sweepErr)
		}
		if err != nil || other == nil {
			return err
		}
		if t.needed(other, id) {
			waitedFor = other
			select {
			case <-ctx.Done():
				return stillAttaching(ctx, other)
			case <-time.After(wait):
			}
			wait = min(2*wait, recordPollMax)
			continue
		}
		needed := func(a *hook.Attachment) bool { return t.needed(a, id) }
		if _, err := t.dropUnlessLive(ctx, other.ID, needed); err != nil {
			return fmt.Errorf("release an earlier attachment that is not in use: %w", err)
		}
	}
}

// isExhausted reports whether an error may be caused by records without running containers: the
// quota, the address, the pool or the MAC is in use.
func isExhausted(err error) bool {
	return errors.Is(err, errQuota) || errors.Is(err, ipam.ErrTaken) ||
		errors.Is(err, ipam.ErrPoolFull) || errors.Is(err, errMACTaken)
}

// stillAttaching returns the error for a wait that ctx ended.
func stillAttaching(ctx context.Context, a *hook.Attachment) error {
	return fmt.Errorf("waited for another hook (pid %d) that attaches %q to this namespace: %w",
		a.Hook.Pid, a.Interface, ctx.Err())
}

// needed reports whether a record that conflicts with this attempt is in use. A record of an
// earlier sandbox of the same pod is not in use after its containers have exited, even if its
// namespace still exists: no hook may come for it any more. With a reference by path (CNI), DEL comes,
// and whether its containers have exited is unknown: a pod that was deleted by force is still ending
// when another one has its name. Nor is a record of this namespace, id, in use if its interface went with
// its parent, no container is known to run, and this attempt creates the interface, unless Reattach does.
func (t *attempt) needed(a *hook.Attachment, id hook.Netns) bool {
	unused := a.State == hook.Attached && a.WithNetns() && !a.InUse()
	earlier := unused && !a.ByPath() && a.OfPod() && a.Pod.Name != "" &&
		a.Pod.String() == t.r.Pod.String() && a.Pod.Sandbox != t.r.Pod.Sandbox
	wanted := a.Network == t.want.Network && (t.want.Interface == "" || t.want.Interface == a.Interface)
	lost := unused && wanted && a.Netns == id && a.Former == nil && !t.hasParent(a)
	return !earlier && !lost && t.live(a, id.Boot)
}

// readNamesAgain reads the names of the namespace's interfaces, and before them its records.
func (t *attempt) readNamesAgain(ctx context.Context, id hook.Netns) error {
	t.named = nil
	if t.loopbackOnly || t.want.Interface != "" {
		return nil
	}
	if err := t.DB.View(ctx, func(tx record.Tx) (err error) {
		t.named, err = record.ByNetns(tx, id)
		return err
	}); err != nil {
		return err
	}
	return t.readNames()
}

// startOver undoes the record of this attach, if there is one.
func (t *attempt) startOver(ctx context.Context) error {
	if t.recorded {
		if err := t.undo(ctx, t.r, t.rec); err != nil {
			return err
		}
	}
	t.recorded, t.joined = false, false
	return nil
}

// errNamesOld is returned by visit if the names of the namespace's interfaces have to be read again.
var errNamesOld = errors.New("an attachment of the namespace was released after its interfaces were listed")

// maxVisits is the number of visits of one try. Each further one needs another release or another
// attachment in the namespace in that time.
const maxVisits = 16

// tryRecordOrJoin repeats visit until it needs nothing more from the container's namespace. That is
// read here, while the database is free: the namespace's owner can add links and change them without
// end, and all other hooks of the host would wait for the kernel's lists of them.
func (t *attempt) tryRecordOrJoin(
	ctx context.Context, id hook.Netns, self netns.Process,
) (other *hook.Attachment, err error) {
	for range maxVisits {
		other, err = t.visit(ctx, id, self)
		var unchecked *uncheckedJoin
		switch {
		case errors.Is(err, errNamesOld):
			err = t.readNamesAgain(ctx, id)
		case errors.As(err, &unchecked):
			t.checked = unchecked.Attachment
			err = t.checkJoined(ctx, &t.checked)
		default:
			return other, err
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the attachments of its namespace do not stop changing: start the container again")
}

// visit writes the intent first, then claims the leases that it names, and then writes
// them to the record: in one visit to the database if the leases are in it, else with the database
// free during the claims. If other is not nil, nothing was written: the caller waits for that
// record, or drops it, and tries again.
func (t *attempt) visit(
	ctx context.Context, id hook.Netns, self netns.Process,
) (other *hook.Attachment, err error) {
	err = t.WithStore(ctx, t.def.Leases, func(in ipam.Store) error {
		if err := t.DB.Update(ctx, func(tx record.Tx) (err error) {
			other, err = t.writeIntentOrJoin(tx, id, self)
			return err
		}); err != nil || other != nil || t.joined {
			return err
		}
		t.recorded = true
		t.reached("intent")
		if err := t.claimAddrs(ctx, t.withShare(in)); err != nil {
			return err
		}
		t.reached("lease")
		if t.parent.Index == 0 {
			return t.recordAddrs(ctx) // the parent does not exist yet: see prepareLinks
		}
		return t.recordEndpoint(ctx)
	})
	return other, err
}

// writeIntentOrJoin reads the records of the container and its namespace. It joins the attachment that
// the request matches, or else writes the intent. other is a record that prevents both.
func (t *attempt) writeIntentOrJoin(
	tx record.Tx, id hook.Netns, self netns.Process,
) (other *hook.Attachment, err error) {
	if other, err = t.unusedElsewhere(tx, id); err != nil || other != nil {
		return other, err
	}
	here, err := record.ByNetns(tx, id)
	if err != nil {
		return nil, err
	}
	match, other, err := t.findMatch(here, id)
	switch {
	case err != nil || other != nil:
		return other, err
	case match != nil:
		return nil, t.join(tx, *match)
	}
	if err := t.checkDefinition(tx); err != nil {
		return nil, err
	}
	if err := checkQuota(tx, t.caller, t.def); err != nil {
		return nil, err
	}
	if err := t.checkRenewed(); err != nil {
		return nil, err
	}
	// Since the names were read, an earlier attachment of the namespace may have been released, and its
	// interface's name is free again. None can be released before this transaction ends.
	for _, a := range t.named {
		if !slices.ContainsFunc(here, func(h hook.Attachment) bool { return h.ID == a.ID }) {
			return nil, errNamesOld
		}
	}
	t.rec, t.here = t.newRecord(id, self, here), here
	return nil, record.Write(tx, nil, &t.rec)
}

// unusedElsewhere returns a record that the container, or its pod, has in another namespace, and that is
// not in use any more: its poststop is late, or never comes.
func (t *attempt) unusedElsewhere(tx record.Tx, id hook.Netns) (*hook.Attachment, error) {
	former, err := record.ByContainer(tx, t.r.Container)
	if err != nil {
		return nil, err
	}
	earlier, err := record.ByPod(tx, t.r.Pod)
	if err != nil {
		return nil, err
	}
	for _, a := range append(former, earlier...) {
		if a.Netns != id && !t.needed(&a, id) {
			return &a, nil
		}
	}
	return nil, nil
}

// checkDefinition reads the definition again, inside the transaction. It returns an error if the
// network is being removed, or was deleted or recreated after the attach had loaded it.
func (t *attempt) checkDefinition(tx record.Tx) error {
	if record.IsRemoving(tx, t.def.Name, t.def.ID) {
		return fmt.Errorf("it is being removed: complete the removal with \"lanyard network rm %s\"", t.def.Name)
	}
	now, err := network.Load(t.Networks, t.def.Name)
	if err != nil {
		return err
	}
	if now.ID != t.def.ID {
		return errors.New("it was deleted and recreated during the attach: start the container again")
	}
	if now.Parent != t.def.Parent {
		return errors.New("its parent was changed during the attach: start the container again")
	}
	return nil
}

// checkQuota returns an error that wraps errQuota if the caller has as many attachments as the
// network allows. It runs inside the intent's transaction, so that simultaneous hooks cannot exceed
// the quota.
func checkQuota(tx record.Tx, c *hook.Caller, def *network.Definition) error {
	if c == nil || c.UID == 0 {
		return nil
	}
	held, err := record.CountOwned(tx, def.Name, c.UID)
	if err != nil {
		return err
	}
	if held >= def.PerUser() {
		return fmt.Errorf("you have %d interfaces on it, and its --max-per-user is %d: %w", held, def.PerUser(), errQuota)
	}
	return nil
}

// errQuota is returned if the caller has as many attachments as the network allows.
var errQuota = errors.New("remove a container first")

// checkRenewed returns an error if the network's addresses need the service, and it does not run.
func (t *attempt) checkRenewed() error {
	if t.def.AsksServers() && !t.renewing {
		return errNotRenewed
	}
	return nil
}

// newRecord returns the intent: container, namespace, network, and the pools of its leases. Each
// resource is added to the record before it is acquired.
func (t *attempt) newRecord(id hook.Netns, self netns.Process, here []hook.Attachment) hook.Attachment {
	rec := hook.Attachment{
		ID: record.NewID(), State: hook.Attaching, Network: t.def.Name, Generation: t.def.ID,
		Driver: t.def.Driver, Interface: t.want.Interface, MTU: t.mtu(), MTURequested: t.mtu(), Netns: id, Hook: self,
		Sysctls:    t.want.Sysctls,
		Containers: []hook.Container{t.container()}, Pod: t.r.Pod,
		Quarantine: time.Duration(t.def.Quarantine),
		Mode:       t.def.VerifyMode().Tighten(t.want.Verify),
		Created:    time.Now().UTC(),
		AtParent:   t.def.GuardsParent(),
		HostLink:   parts.HostLinkName(t.def),
		Leases:     t.def.Leases,

		DefaultRoute: t.want.Default,
	}
	if t.caller != nil {
		rec.Owner = t.caller.UID
	}
	if t.def.TakesRouters() {
		rec.SLAAC = &hook.SLAAC{Managed: t.def.FromServers(6)}
	}
	if t.guarded {
		rec.Guard = &verify.Guard{Attachment: rec.ID}
	}
	for _, s := range t.subnets {
		rec.Pools = append(rec.Pools, parts.PoolName(t.def, s))
	}
	rec.Pools = append(rec.Pools, parts.ServerPools(t.def)...)
	// Not an error: without a number, poststop searches for the namespace.
	if number, err := t.Host.NSID(t.ns); err == nil {
		rec.Number = &number
	}
	if rec.Interface == "" {
		rec.Interface = t.freeName(here)
	}
	return rec
}

// freeName returns the first of eth0, eth1, … that neither the namespace nor a record for it has.
func (t *attempt) freeName(here []hook.Attachment) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		used := slices.Contains(t.usedNames, name) ||
			slices.ContainsFunc(here, func(a hook.Attachment) bool { return a.Interface == name })
		if !used {
			return name
		}
	}
}
