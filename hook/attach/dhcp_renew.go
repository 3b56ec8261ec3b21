package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam/boottime"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/verify"
)

const (
	// renewPoll is how often the records are read for leases to renew. It is the shortest T1.
	renewPoll = time.Second
	// renewWait is how long one attempt waits for an answer. renewRetry is the shortest time between
	// two attempts, and lostRetry the time if the container has no address.
	renewWait  = 4 * time.Second
	renewRetry = 10 * time.Second
	lostRetry  = time.Second
	// renewAtOnce is the maximum number of leases that are extended at the same time, and of lost leases
	// that are replaced.
	renewAtOnce = 16
)

// RenewLeases extends the leases of DHCP servers when their time has come, until ctx ends. The state of
// a lease is in the attachment's record, so that another process can continue. A lease that ends is
// logged and marked in the record, and RenewLeases asks for another one until it gets it.
func (l *Local) RenewLeases(ctx context.Context) {
	r := newRenewals()
	for ctx.Err() == nil {
		if err := l.renewDue(ctx, r); err != nil && ctx.Err() == nil {
			l.Log.Error("could not read the leases of DHCP servers", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(renewPoll):
		}
	}
	_, _ = r.lost.Wait(), r.healthy.Wait() // no function returns an error
}

// renewals are the leases that are being renewed. Lost leases have their own limit: they wait for a
// server that may be gone, and must not delay healthy ones.
type renewals struct {
	lost, healthy errgroup.Group

	mu   sync.Mutex
	next map[renewalKey]boottime.Instant // when to try again, after a failure
	busy map[verify.ID]bool
}

func newRenewals() *renewals {
	r := &renewals{next: map[renewalKey]boottime.Instant{}, busy: map[verify.ID]bool{}}
	r.lost.SetLimit(renewAtOnce)
	r.healthy.SetLimit(renewAtOnce)
	return r
}

// waiting returns the leases of recs that are due and not being renewed, those that have waited longest
// first. busy are those that were being renewed before recs was read: their rows may be old.
func (r *renewals) waiting(recs []hook.Attachment, busy map[verify.ID]bool) (all []due) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := boottime.Now()
	maps.DeleteFunc(r.next, func(k renewalKey, _ boottime.Instant) bool {
		return !slices.ContainsFunc(recs, func(a hook.Attachment) bool { return a.ID == k.id })
	})
	for _, a := range recs {
		if a.State != hook.Attached || busy[a.ID] {
			continue
		}
		for _, f := range hook.Families {
			if d := (due{a, f}); now >= r.next[d.key()] && isDue(d.lease(), now) {
				all = append(all, d)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b due) int { return cmp.Compare(r.next[a.key()], r.next[b.key()]) })
	// The second lease of an attachment has its turn after the first one has changed the record.
	seen := map[verify.ID]bool{}
	return slices.DeleteFunc(all, func(d due) bool {
		second := seen[d.ID]
		seen[d.ID] = true
		return second
	})
}

// due is an attachment with a lease of a family that has to be extended or replaced.
type due struct {
	hook.Attachment
	family hook.Family
}

// renewalKey identifies a lease of an attachment.
type renewalKey struct {
	id     verify.ID
	family hook.Family
}

func (d *due) key() renewalKey    { return renewalKey{d.ID, d.family} }
func (d *due) lease() *dhcp.Lease { return d.ServerLease(d.family) }

// noLimit is longer than any replacement takes.
const noLimit = time.Hour

// untilOther returns for how long a replacement may go on. The lease of the other family, which is not renewed
// at the same time, waits for it until T2 at the latest.
func (d *due) untilOther(now boottime.Instant) time.Duration {
	for _, f := range hook.Families {
		l := d.ServerLease(f)
		if f != d.family && l != nil && l.Lost == "" && l.Rebind > now {
			return min(l.Rebind.Sub(now), noLimit)
		}
	}
	return noLimit
}

// inProgress returns the leases that are being renewed.
func (r *renewals) inProgress() map[verify.ID]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.busy)
}

// start renews a lease in the background, if fewer than renewAtOnce of its kind are being renewed. f
// returns the time until the next attempt, 0 after a success.
func (r *renewals) start(d due, f func() time.Duration) {
	group := &r.healthy
	if d.lease().Lost != "" {
		group = &r.lost
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	started := group.TryGo(func() error {
		wait := f()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, d.ID)
		if delete(r.next, d.key()); wait != 0 {
			r.next[d.key()] = boottime.Now().Add(wait)
		}
		return nil
	})
	if started {
		r.busy[d.ID] = true
	}
}

// renewDue starts to renew the leases that are due.
func (l *Local) renewDue(ctx context.Context, r *renewals) error {
	busy := r.inProgress()
	var recs []hook.Attachment
	if err := l.WithDB(ctx, func() error {
		return l.DB.View(ctx, func(tx record.Tx) (err error) {
			if err = record.Ready(tx); err == nil {
				recs, err = record.WithDHCP(tx)
			}
			return err
		})
	}); err != nil {
		return err
	}
	boot, err := netns.BootID()
	if err != nil {
		return err
	}
	// The times of an earlier boot mean nothing: the sweep releases its records.
	recs = slices.DeleteFunc(recs, func(a hook.Attachment) bool { return a.Netns.Boot != boot })
	for _, d := range r.waiting(recs, busy) {
		r.start(d, func() time.Duration {
			err := l.renew(ctx, d)
			if err == nil || ctx.Err() != nil || errors.Is(err, hook.ErrGone) {
				return 0
			}
			if errors.Is(err, errInterfaceGone) { // lists of containers say so
				l.Log.With(d.LogAttrs()...).Debug("asked for no lease", "err", err)
				return renewRetry
			}
			lease := d.lease()
			l.Log.With(d.LogAttrs()...).Warn("could not renew the lease of a container",
				"address", lease.Addr, "server", lease.Server, "ends", lease.Expires.Wall(), "err", err)
			return retryAfter(lease, boottime.Now(), err)
		})
	}
	return nil
}

// isDue reports whether a lease has to be extended, or replaced.
func isDue(l *dhcp.Lease, now boottime.Instant) bool {
	return l != nil && (l.Lost != "" || l.Renew != 0 && now >= l.Renew)
}

// errInterfaceGone is returned for a lease that an interface would have to get, which the container has deleted.
// A reattach creates it again.
var errInterfaceGone = errors.New("the interface is gone")

// checkExists returns an error that wraps errInterfaceGone if the interface of an attachment does not exist.
func (l *Local) checkExists(ns *link.Netns, a *hook.Attachment) error {
	i, _, err := ns.LinkAt(a.Index)
	if err == nil && (i == nil || !driver.Of(l.Parts, a).Matches(i, a)) {
		err = errInterfaceGone
	}
	return err
}

// errNoAddress is returned if a container was left without an address.
var errNoAddress = errors.New("the container has no address")

// retryAfter returns the time until the next attempt after an error: half of what is left until the
// next step, and at least renewRetry, unless the lease is about to end (RFC 2131 §4.4.5).
func retryAfter(l *dhcp.Lease, now boottime.Instant, err error) time.Duration {
	if l.Lost != "" || errors.Is(err, errNoAddress) {
		return lostRetry
	}
	next := l.Rebind
	if now > next {
		next = l.Expires
	}
	left := next.Sub(now)
	return min(max(left/2, renewRetry), left)
}

// renew extends one lease, or gets another one if it has ended.
func (l *Local) renew(ctx context.Context, d due) error {
	def, err := network.Load(l.Networks, d.Network)
	if err != nil {
		return err
	}
	ns, err := l.Host.FindNetns(d.Netns.Inode, d.Netns.Cookie)
	if err != nil || ns == nil {
		return err // without a namespace, the sweep releases the attachment
	}
	defer ns.Close()
	old := d.lease()
	if old.Lost != "" {
		return l.replaceLease(ctx, ns, d, nil)
	}
	left := old.Expires.Sub(boottime.Now())
	if left <= 0 {
		return l.loseLease(ctx, ns, d, fmt.Sprintf("the lease of %s ended at %s, and no DHCP server has extended it",
			old.Addr.Addr(), old.Expires.Wall().Format(time.TimeOnly)))
	}
	var now dhcp.Lease
	// Not after its end: the kernel removes the address then.
	asked, cancel := context.WithTimeout(ctx, min(renewWait, left))
	defer cancel()
	err = l.withServers(ns, &d.Attachment, d.family, func(c dhcp.Conn) error {
		now, err = c.Extend(asked, *old, dhcp.Request{Given: givenByNetwork(def)})
		return err
	})
	switch {
	case errors.Is(err, dhcp.ErrRefused):
		return l.loseLease(ctx, ns, d, err.Error())
	case err != nil:
		return err
	case old.Server.IsValid() && !sameConfiguration(*old, now): // of a rebuilt lease, little is known
		return l.replaceLease(ctx, ns, d, &now)
	}
	return l.extended(ctx, ns, d, def, now)
}

// extended changes the address in the container and the record to a lease that was extended.
func (l *Local) extended(
	ctx context.Context, ns *link.Netns, d due, def *network.Definition, now dhcp.Lease,
) error {
	few := *ns
	few.Tries = 3
	addrs, err := few.Addrs(d.Index)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(addrs, func(has link.Addr) bool { return has.Prefix == now.Addr }) {
		return withoutAddress(l.replaceLease(ctx, ns, d, &now)) // its routes are gone, too
	}
	if err := ns.ExtendAddr(d.Index, addrOfLease(&now)); err != nil {
		return err
	}
	if !d.lease().Server.IsValid() && d.family == hook.IPv4 {
		return l.completeLease(ctx, d.Attachment, def, now)
	}
	return l.recordLease(ctx, d, now)
}

// completeLease writes the lease of a rebuilt record with what only its server knows: the gateway. The
// datapath watches for its answers from then on.
func (l *Local) completeLease(ctx context.Context, a hook.Attachment, def *network.Definition, now dhcp.Lease) error {
	a.DHCP, a.Gateways = &now, nil
	a.SetServerAddr(hook.IPv4, now.Addr)
	if s := subnetOfLease(def, now); s.Gateway.IsValid() && !def.Internal {
		a.Gateways = []netip.Addr{s.Gateway}
	}
	v := verification{Local: l, rec: a}
	a.Endpoint.Addrs, a.Endpoint.Gateways = v.addrs(), v.targets()
	if err := l.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, a.ID)
		if err != nil {
			return err
		}
		row.DHCP, row.Addrs, row.Gateways, row.Endpoint = a.DHCP, a.Addrs, a.Gateways, a.Endpoint
		return record.Replace(tx, &row)
	}); err != nil {
		return err
	}
	if driver.Of(l.Parts, &a).WhyUnwatchable(a.Parent) != "" {
		return nil
	}
	err := l.whileAttached(ctx, &a, func(now *hook.Attachment) error { return l.Datapath.Expect(now.Endpoint) })
	if err != nil && !errors.Is(err, hook.ErrGone) {
		l.Log.Warn("could not watch a restored endpoint", "mac", a.MAC, "err", err)
	}
	return nil
}

// sameConfiguration reports whether two leases give an interface the same addresses and routes.
func sameConfiguration(a, b dhcp.Lease) bool {
	return a.Addr == b.Addr && a.Gateway == b.Gateway && slices.Equal(a.Routes, b.Routes)
}

// recordLease writes a lease to the record of an attachment, which has no address of the family if it is
// lost.
func (l *Local) recordLease(ctx context.Context, d due, now dhcp.Lease) error {
	return l.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, d.ID)
		if err != nil {
			return err
		}
		setLease(&row, d.family, &now)
		return record.Replace(tx, &row)
	})
}

// setLease sets a lease of a record, and its address if it is not lost.
func setLease(row *hook.Attachment, f hook.Family, l *dhcp.Lease) {
	var addr netip.Prefix
	if l.Lost == "" {
		addr = l.Addr
	}
	row.SetServerLease(f, l)
	row.SetServerAddr(f, addr)
}

// loseLease removes an address that the container must not use any more, and says so. Then it asks for
// another lease.
func (l *Local) loseLease(ctx context.Context, ns *link.Netns, d due, why string) error {
	lost := *d.lease()
	l.Log.With(d.LogAttrs()...).Error("a container has lost its address",
		"address", lost.Addr, "verdict", verify.LeaseLost, "why", why)
	lost.Lost = strings.ReplaceAll(why, "\n", "; ")
	err := l.permitWithout(ctx, d.Attachment, d.family)
	if errors.Is(err, errRecreated) {
		return err
	}
	err = errors.Join(err, ns.DelAddr(d.Index, lost.Addr))
	if err == nil {
		// A server may have extended it in terms that were refused.
		err = l.giveBack(ctx, &d.Attachment, d.family, 0)
		lost.Returned = err == nil
	}
	if err = errors.Join(err, l.recordLease(ctx, d, lost)); err == nil {
		d.SetServerLease(d.family, &lost)
		err = l.replaceLease(ctx, ns, d, nil)
	}
	return withoutAddress(err)
}

// withoutAddress returns an error that is also errNoAddress, or nil.
func withoutAddress(err error) error {
	if err == nil || errors.Is(err, errNoAddress) {
		return err
	}
	return errors.Join(errNoAddress, err)
}

// permitWithout makes the guards of an attachment drop all frames from the address of a family, until it
// has another lease. It returns errRecreated if the record has another interface by now.
func (l *Local) permitWithout(ctx context.Context, a hook.Attachment, f hook.Family) error {
	return l.whileAttached(ctx, &a, func(now *hook.Attachment) error {
		if now.Index != a.Index {
			return errRecreated
		}
		return l.withdrawPermit(a, f)
	})
}

// withdrawPermit writes the permits of an attachment without the address and the gateways of a family.
func (l *Local) withdrawPermit(a hook.Attachment, f hook.Family) (err error) {
	a.SetServerAddr(f, netip.Prefix{})
	a.Gateways = slices.DeleteFunc(slices.Clone(a.Gateways), func(g netip.Addr) bool { return hook.FamilyOf(g) == f })
	p := permitOf(&a, a.MTU)
	if a.AtParent {
		err = l.Guards.Permit(a.ParentIdx, p)
	}
	if a.Guard == nil {
		return err
	}
	guards, gerr := l.OpenGuards()
	if gerr != nil {
		return errors.Join(err, gerr)
	}
	defer guards.Close()
	p.Outside, p.Inside, p.MTU, p.Asks = a.Guard.Outside, a.Guard.Inside, a.Guard.MTU, false
	return errors.Join(err, guards.Do(func() error { return l.Guards.Admit(p) }))
}

// replaceLease gives a running container another lease: the given one, or the one that a server gives
// now. It probes the address, and changes interface, guard, datapath and record to it. On an error,
// the interface has no address of the family, and the record says why. The addresses of the other family
// stay as they are. It asks no server for an interface that is gone.
func (l *Local) replaceLease(ctx context.Context, ns *link.Netns, d due, given *dhcp.Lease) error {
	if err := l.checkExists(ns, &d.Attachment); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.untilOther(boottime.Now()))
	defer cancel()
	t, err := l.replacement(ctx, ns, d)
	if err != nil {
		return err
	}
	old := d.lease()
	if old.Addr.IsValid() { // of a rebuilt record, it may not be known
		if err := ns.DelAddr(d.Index, old.Addr); err != nil {
			return err
		}
	}
	if old.Lost != "" && !old.Returned {
		// The process that got it was killed.
		if err := l.giveBack(ctx, &d.Attachment, d.family, 0); err != nil {
			return err
		}
	}
	if given != nil {
		err = t.takeGiven(ctx, *given)
	} else {
		err = t.acquireLease(ctx, d.family)
	}
	if err == nil {
		err = t.verifyAndConfigure(ctx)
	}
	if err == nil && t.rec.Verdict.Code.Fatal(t.rec.Mode) {
		err = &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
	}
	if err == nil {
		err = t.keepRouters(ctx, d.Attachment)
	}
	if err == nil {
		err = t.commit(ctx)
	}
	if err != nil {
		return withoutAddress(errors.Join(err, t.dropLease(ctx, *old)))
	}
	now := t.rec.ServerLease(d.family)
	l.Log.With(d.LogAttrs()...).Info("a container has a new lease", "before", old.Addr,
		"address", now.Addr, "server", now.Server)
	return nil
}

// replacement returns the attempt to replace one lease of an attachment. Its record is without that lease.
func (l *Local) replacement(ctx context.Context, ns *link.Netns, d due) (*attempt, error) {
	t, err := l.attemptAgain(ctx, ns, d.Attachment)
	if err != nil {
		return nil, err
	}
	if t.parent, err = l.Host.ParentAt(d.ParentIdx); err != nil {
		return nil, err
	}
	t.replacing, t.rowIndex, t.want.Addrs, t.rec.MTU = d.family, d.Index, nil, d.MTU
	t.link = link.Interface{Name: d.Interface, Index: d.Index, MAC: d.MAC, MTU: d.MTU}
	t.unwatched = l.WatchNetwork(t.def, t.parent)
	if t.hostAddrs, err = t.Host.HostAddrs(); err != nil {
		return nil, err
	}
	for _, f := range hook.Families { // also a lost one of the other family
		t.rec.SetServerLease(f, d.ServerLease(f))
	}
	t.rec.SetServerLease(d.family, nil)
	t.rec.SetServerAddr(d.family, netip.Prefix{})
	t.kept = t.addrs()
	return t, nil
}

// errRecreated is returned if Reattach has created an interface again while its lease was replaced: the
// record and the lease are those of the new interface.
var errRecreated = errors.New("its interface was created again")

// checkSame returns errRecreated if now, the record as it is now, has another interface than when this
// attempt read or wrote it.
func (t *attempt) checkSame(now *hook.Attachment) error {
	if now.Index != t.rowIndex {
		return errRecreated
	}
	return nil
}

// replaceRow is record.Replace. If the attempt replaces a lease, it returns errRecreated as checkSame does.
func (t *attempt) replaceRow(tx record.Tx, a *hook.Attachment) error {
	if t.replacing == 0 {
		return record.Replace(tx, a)
	}
	now, err := record.Get(tx, a.ID)
	if err == nil {
		err = t.checkSame(&now)
	}
	if err == nil {
		err = record.Replace(tx, a)
	}
	if err == nil {
		t.rowIndex = a.Index
	}
	return err
}

// takeGiven makes a lease that a server has given, in place of another one, that of the attachment. It is
// in the record before it is checked, so that it goes back to the server after an error.
func (t *attempt) takeGiven(ctx context.Context, l dhcp.Lease) (err error) {
	t.rec.SetServerLease(t.replacing, &l)
	if err := t.usableHere(l); err != nil {
		return fmt.Errorf("DHCP server %s (%s): %w", l.Server, l.ServerMAC, err)
	}
	if t.replacing == hook.IPv6 {
		if l.Addr, err = t.withPrefix(ctx, l.Addr); err != nil {
			return err
		}
	}
	return t.take(ctx, t.replacing, l)
}

// dropLease removes the address of an attempt that failed, closes the guard, gives the lease back unless
// it was declined, and records old as lost. It has its own time limit, because ctx may be over. If a
// detach has removed the record, only the interface is left. What Reattach has created since stays.
func (t *attempt) dropLease(ctx context.Context, old dhcp.Lease) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	defer func() {
		if errors.Is(err, hook.ErrGone) {
			err = errors.Join(err, t.removeLink())
		}
	}()
	err = t.whileAttached(ctx, &t.rec, t.checkSame)
	if errors.Is(err, hook.ErrGone) || errors.Is(err, errRecreated) {
		return err
	}
	for _, p := range t.rec.Addrs {
		if !t.isKept(p.Addr()) {
			err = errors.Join(err, t.ns.DelAddr(t.link.Index, p))
		}
	}
	if old.Lost == "" {
		old.Lost = fmt.Sprintf("the DHCP server has changed the lease of %s, and the new one could not be used",
			old.Addr.Addr())
	}
	now := t.rec.ServerLease(t.replacing)
	if err = errors.Join(err, t.permitWithout(ctx, t.rec, t.replacing)); err == nil {
		err = t.giveBack(ctx, &t.rec, t.replacing, 0) // the container cannot use it any more
	}
	if err == nil {
		old.Returned = true
	} else if now != nil {
		now.Lost = old.Lost
		old = *now // the next attempt gives it back
	}
	return errors.Join(err, t.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, t.rec.ID)
		if err != nil {
			return err
		}
		if err := t.checkSame(&row); err != nil {
			return err
		}
		row.MTU, row.Guard = t.link.MTU, t.rec.Guard
		setLease(&row, t.replacing, &old)
		return record.Replace(tx, &row)
	}))
}
