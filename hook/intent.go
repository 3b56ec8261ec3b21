package hook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// busyWait is how often a record that another hook is attaching, or taking back,
// is looked at: the first time, and in the long run.
// There is no event to wait for: that hook may be killed at any moment.
const (
	recordPoll    = 5 * time.Millisecond
	recordPollMax = 50 * time.Millisecond
)

// begin puts the intent on record and claims its addresses, or joins the
// attachment that the namespace has already. Where another hook is just
// attaching the same, it waits for that one's verdict.
func (t *attempt) enterDatabase(ctx context.Context, id Netns) error {
	self, err := link.Self()
	if err != nil {
		return err
	}
	wait, swept := recordPoll, false
	for {
		other, err := t.tryEnter(ctx, id, self)
		if isExhausted(err) && !swept {
			if swept, err = t.sweepForRoom(ctx, err); swept && err == nil {
				continue
			}
		}
		if err != nil || other == nil {
			return err
		}
		if t.needed(other, id.Boot) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("waited for another hook (pid %d) that attaches %q here: %w", other.Hook.Pid, other.Interface, ctx.Err())
			case <-time.After(wait):
			}
			wait = min(2*wait, recordPollMax)
			continue
		}
		if _, err := t.dropUnlessLive(ctx, other.ID, func(a *Attachment) bool { return t.needed(a, id.Boot) }, false); err != nil {
			return fmt.Errorf("sweep what an earlier start left: %w", err)
		}
	}
}

// isScarce says whether an error may be due to what the dead still hold.
func isExhausted(err error) bool {
	return errors.Is(err, errQuota) || errors.Is(err, ipam.ErrTaken) || errors.Is(err, ipam.ErrPoolFull) || errors.Is(err, errMACTaken)
}

// makeRoom takes back what containers hold that are gone, their addresses at
// once: somebody wants them. Its error is full where there was nothing.
func (t *attempt) sweepForRoom(ctx context.Context, full error) (swept bool, err error) {
	if t.recorded {
		if err := t.undo(ctx, t.r, t.rec); err != nil {
			return false, errors.Join(full, err)
		}
		t.recorded = false
	}
	took, err := t.sweep(ctx, true, func(a *Attachment) bool {
		// Others' are none of a caller's business, nor is the time that they take.
		return t.caller == nil || a.Owner == t.caller.UID
	})
	if len(took) == 0 {
		return false, errors.Join(full, err)
	}
	if err != nil {
		// What can be taken back is room enough: whoever has a namespace may see to
		// it that what they had in there cannot.
		t.Log.Warn("not all that is over could be taken back", "err", err)
	}
	return true, nil
}

// intend is one visit to the database: the intent first, then the leases that
// it names. other is a record that has to be waited for, or dropped, before.
func (t *attempt) tryEnter(ctx context.Context, id Netns, self link.Process) (other *Attachment, err error) {
	err = t.DB.Hold(ctx, func() error {
		if err := t.DB.Update(ctx, func(tx Tx) (err error) {
			other, err = t.intendOrJoin(tx, id, self)
			return err
		}); err != nil || other != nil || t.joined {
			return err
		}
		t.recorded = true
		t.reached("intent")
		if err := t.claimAddrs(ctx); err != nil {
			return err
		}
		t.reached("lease")
		if t.parent.Index == 0 {
			return nil // not made yet: see ready
		}
		return t.recordEndpoint(ctx)
	})
	return other, err
}

// enter looks at what the namespace and the container have, and writes the
// intent where nothing stands against it.
func (t *attempt) intendOrJoin(tx Tx, id Netns, self link.Process) (other *Attachment, err error) {
	former, err := findReady(tx, bucketContainers, t.r.Container)
	if err != nil {
		return nil, err
	}
	earlier, err := podAttachments(tx, t.r.Pod)
	if err != nil {
		return nil, err
	}
	for _, a := range append(former, earlier...) {
		// The same container id in another namespace, and nobody lives there
		// any more: its poststop is late, or never comes.
		if a.Netns != id && !t.needed(&a, id.Boot) {
			return &a, nil
		}
	}
	here, err := find(tx, bucketNetns, id.key())
	if err != nil {
		return nil, err
	}
	for _, a := range here {
		// Below Linux 5.14 another namespace may have the inode of one that is
		// gone: what nobody lives in is not this one's. A pod's container may have
		// deleted the interface, and exited: its poststop may come later.
		if (id.Cookie == 0 || a.ofPod()) && a.State == Attached && !t.live(&a, id.Boot) {
			return &a, nil
		}
		match, err := t.matches(a)
		if err != nil {
			return nil, err
		}
		if !match {
			continue
		}
		if a.State != Attached {
			return &a, nil
		}
		if t.caller != nil && a.Owner != t.caller.UID {
			return nil, refusal("interface %q of its namespace is held by uid %d", a.Interface, a.Owner)
		}
		return nil, t.join(tx, a)
	}
	if err := t.checkDefinition(tx); err != nil {
		return nil, err
	}
	if err := t.caller.checkQuota(tx, t.def); err != nil {
		return nil, err
	}
	t.rec = t.newRecord(id, self, here)
	return nil, write(tx, nil, &t.rec)
}

// matches reports whether what the container wants is what its namespace has;
// something in between is refused, naming both.
func (t *attempt) matches(a Attachment) (bool, error) {
	w := t.want
	sameInterface := w.Interface == a.Interface
	if a.Network != w.Network && !sameInterface {
		return false, nil
	}
	if w.Interface != "" && !sameInterface {
		return false, nil // a second interface on the same network
	}
	if a.Network != w.Network {
		return false, fmt.Errorf("interface %q of this namespace is on network %q already: ask for another io.lanyard.interface", a.Interface, a.Network)
	}
	if a.State != Attached {
		return true, nil
	}
	for _, addr := range w.Addrs {
		if !slices.ContainsFunc(a.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return false, fmt.Errorf("asked for %s, but this namespace's %q has %s already: containers that share a namespace share its address", addr, a.Interface, joinPrefixes(a.Addrs))
		}
	}
	if !w.MAC.IsZero() && w.MAC != a.MAC {
		return false, fmt.Errorf("asked for MAC %s, but this namespace's %q has %s already", w.MAC, a.Interface, a.MAC)
	}
	return true, nil
}

func joinPrefixes(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.String()
	}
	return strings.Join(s, ", ")
}

// join adds the container to those that hold the attachment.
func (t *attempt) join(tx Tx, a Attachment) error {
	if mode := a.Mode.Tighten(t.want.Verify); a.Verdict.Code.Fatal(mode) {
		return fmt.Errorf("this namespace's %q does not do for verify mode %s: %s: %s", a.Interface, mode, a.Verdict.Code, a.Verdict.Text)
	}
	if a.Guard == nil {
		// Whoever has the namespace may have deleted it.
		if i, err := findLink(t.ns, a); err != nil || i == nil {
			return errors.Join(fmt.Errorf("interface %q of this namespace is gone: end the containers that share it, and start them again", a.Interface), err)
		}
	}
	if a.Pod == (Pod{}) {
		a.Pod = t.r.Pod // rebuilt, or made for a container that did not name its pod
	}
	a.Containers = slices.DeleteFunc(a.Containers, func(c Container) bool {
		return c.ID == t.r.Container || a.ofPod() && !link.Alive(c.Process) // an attempt that failed
	})
	if t.caller != nil && len(a.Containers) >= maxSharers {
		return fmt.Errorf("%d containers share its interface %q already", len(a.Containers), a.Interface)
	}
	a.Containers = append(a.Containers, t.container())
	t.rec, t.joined = a, true
	return put(tx, &t.rec)
}

func (t *attempt) container() Container {
	return Container{ID: t.r.Container, Name: t.r.Name, Process: t.ns.Process}
}

// mayEnter looks at the definition once more, inside the transaction: the
// network may be being removed, or have been made anew, since it was loaded.
func (t *attempt) checkDefinition(tx Tx) error {
	if generation, ok := tx.Get(bucketRemoving, t.def.Name); ok && string(generation) == t.def.ID {
		return fmt.Errorf("it is being removed: finish with \"lanyard network rm %s\"", t.def.Name)
	}
	if s := network.StampOf(t.Networks, t.def.Name); s == t.stamp && s != (network.Stamp{}) {
		return nil // it is what was loaded
	}
	now, err := network.Load(t.Networks, t.def.Name)
	if err != nil {
		return err
	}
	if now.ID != t.def.ID {
		return errors.New("it was removed and made anew meanwhile: start the container again")
	}
	return nil
}

// intent is the record as it begins: who, where, and which pools to look for
// leases in. What is acquired is added before it is acquired.
func (t *attempt) newRecord(id Netns, self link.Process, here []Attachment) Attachment {
	rec := Attachment{
		ID: newID(), State: Attaching, Network: t.def.Name, Generation: t.def.ID,
		Driver: t.def.Driver, Interface: t.want.Interface, MTU: t.mtu(), Netns: id, Hook: self,
		Containers: []Container{t.container()}, Pod: t.r.Pod,
		Quarantine: time.Duration(t.def.Quarantine),
		Mode:       verify.Mode(t.def.VerifyMode()).Tighten(t.want.Verify),
		Created:    time.Now().UTC(),
		Owner:      t.caller.owner(),
		AtParent:   t.def.GuardsParent(),
		HostLink:   hostLinkName(t.def),
	}
	if t.guarded {
		rec.Guard = &verify.Guard{Attachment: rec.ID}
	}
	for _, s := range t.subnets {
		rec.Pools = append(rec.Pools, poolName(t.def, s))
	}
	// Without a number poststop has to look for the namespace: no reason to fail.
	if number, err := t.Host.Number(t.ns); err == nil {
		rec.Number = &number
	}
	if rec.Interface == "" {
		rec.Interface = t.freeName(here)
	}
	return rec
}

func (t *attempt) mtu() int {
	if t.want.MTU != 0 {
		return t.want.MTU
	}
	return t.def.MTU
}

// freeName is the first of eth0, eth1, … that neither the namespace nor an
// intent for it has.
func (t *attempt) freeName(here []Attachment) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		taken := slices.Contains(t.usedNames, name) ||
			slices.ContainsFunc(here, func(a Attachment) bool { return a.Interface == name })
		if !taken {
			return name
		}
	}
}
