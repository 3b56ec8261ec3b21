package attach

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// storeOrShare is the store of an attach on a network with OnOutageSlice. While the store is out of
// reach, it claims addresses of this host's share: the record alone has them then, in Pending, and
// [Local.RenewShared] confirms them later. No other host can claim them, and no other attach on this host,
// because each looks for an address and records it in one transaction. An attach that has claimed an
// address in the store looks for it in the other records when it records it (checkOwnAddrs).
type storeOrShare struct {
	ipam.Store
	t *attempt
}

// withShare returns the store for the claims of the attach.
func (t *attempt) withShare(in ipam.Store) ipam.Store {
	if t.def.OnOutage != network.OnOutageSlice {
		return in
	}
	return storeOrShare{in, t}
}

// askAgainAfter is for how long requests do not wait for a store that has not answered another one.
const askAgainAfter = 10 * time.Second

// outages are the stores that have not answered lately, for all requests of this process: without it, each
// start in an outage would wait for the store. It is safe for concurrent use. The zero value has none.
type outages struct {
	mu   sync.Mutex
	last map[network.LeaseStore]outage
}

// outage is why a store gave no answer, and until when it is not asked again.
type outage struct {
	why   error
	until time.Time
}

// recent returns the error of a store's last outage, or nil if the caller is to ask the store. Once per
// askAgainAfter one caller gets nil; the others get the error and do not wait.
func (o *outages) recent(kind network.LeaseStore, now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, has := o.last[kind]
	if !has {
		return nil
	}
	if now.Before(last.until) {
		return last.why
	}
	o.last[kind] = outage{last.why, now.Add(askAgainAfter)}
	return nil
}

// note keeps that a store gave no answer, or with a nil error that it gave one.
func (o *outages) note(kind network.LeaseStore, why error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if why == nil {
		delete(o.last, kind)
		return
	}
	if o.last == nil {
		o.last = map[network.LeaseStore]outage{}
	}
	o.last[kind] = outage{why, now.Add(askAgainAfter)}
}

// noteOutage reports whether an error of the store is an outage that this attach can go on in. The
// later networks and attempts of the request do not wait for the store again, nor do the next requests.
func (v *verification) noteOutage(err error) bool {
	if v.def.OnOutage != network.OnOutageSlice {
		return false
	}
	if !errors.Is(err, ipam.ErrOutOfReach) {
		v.outages.note(v.def.Leases, nil, time.Now())
		return false
	}
	v.outages.note(v.def.Leases, err, time.Now())
	v.setOutage(err)
	return true
}

func (v *verification) setOutage(err error) {
	if v.outage == nil {
		v.outage = new(error)
	}
	*v.outage = err
}

// outageOf returns why the network's store is out of reach, nil if it is in reach, or was not asked, or
// the network has no share.
func (v *verification) outageOf() error {
	if v.outage == nil || v.def.OnOutage != network.OnOutageSlice {
		return nil
	}
	return *v.outage
}

// outageBefore is outageOf, before the store is asked. It can be that of another request.
func (v *verification) outageBefore() error {
	if err := v.outageOf(); err != nil || v.def.OnOutage != network.OnOutageSlice {
		return err
	}
	err := v.outages.recent(v.def.Leases, time.Now())
	if err != nil {
		v.setOutage(err)
	}
	return err
}

// Claim implements [ipam.Store].
func (s storeOrShare) Claim(ctx context.Context, pool string, l ipam.Lease) error {
	err := s.t.outageBefore()
	if err == nil {
		if err = s.Store.Claim(ctx, pool, l); !s.t.noteOutage(err) {
			return err
		}
	}
	_, err = s.t.claimInShare(ctx, pool, func(c *choice) (netip.Addr, error) {
		if !c.free(l.Addr) {
			return netip.Addr{}, fmt.Errorf("%w: %s is not a free address of this host's share %s, and no "+
				"other can be requested during the outage: %w", ipam.ErrTaken, l.Addr, joinPrefixes(c.share.Ranges), s.t.outageOf())
		}
		return l.Addr, nil
	})
	return err
}

// Next implements [ipam.Store].
func (s storeOrShare) Next(ctx context.Context, pool string, p ipam.Pool, l ipam.Lease) (a netip.Addr, err error) {
	choose := func(c *choice) (netip.Addr, error) { return c.next(p, l.Addr, s.t.outageOf()) }
	if s.t.outageBefore() != nil {
		return s.t.claimInShare(ctx, pool, choose)
	}
	pending, err := s.t.pendingOnHost(ctx)
	if err != nil {
		return a, err
	}
	for _, a := range pending {
		p.Reserved[a] = "address of a container that started while the store was out of reach"
	}
	if a, err = s.Store.Next(ctx, pool, p, l); s.t.noteOutage(err) {
		return s.t.claimInShare(ctx, pool, choose)
	}
	return a, err
}

// Decline implements [ipam.Store].
func (s storeOrShare) Decline(ctx context.Context, pool string, a netip.Addr, o ipam.Owner, d time.Duration) error {
	pending := slices.Contains(s.t.rec.Pending, a)
	if !pending && s.t.outageBefore() == nil {
		err := s.Store.Decline(ctx, pool, a, o, d)
		if !s.t.noteOutage(err) {
			return err
		}
	}
	s.t.rec.Pending = slices.DeleteFunc(slices.Clone(s.t.rec.Pending), func(p netip.Addr) bool { return p == a })
	now := boottime.Now()
	return s.t.updateShare(ctx, pool, func(share *record.Share) {
		declined := map[netip.Addr]boottime.Instant{a: now.Add(d)}
		for a, until := range share.Declined {
			if until > now {
				declined[a] = max(until, declined[a])
			}
		}
		share.Declined = declined
	})
}

// pendingOnHost returns the addresses of this host's containers on the network that the store does not
// have yet.
func (t *attempt) pendingOnHost(ctx context.Context) (pending []netip.Addr, err error) {
	err = t.DB.View(ctx, func(tx record.Tx) error {
		recs, err := record.ByNetwork(tx, t.def.Name)
		for _, a := range recs {
			pending = append(pending, a.Pending...)
		}
		return err
	})
	return pending, err
}

// claimInShare records an address of this host's share that choose has chosen, and returns it.
func (t *attempt) claimInShare(
	ctx context.Context, pool string, choose func(*choice) (netip.Addr, error),
) (a netip.Addr, err error) {
	err = t.DB.Update(ctx, func(tx record.Tx) error {
		c, err := t.choiceIn(tx, t.def, pool, t.outageOf())
		if err != nil {
			return err
		}
		if a, err = choose(c); err != nil {
			return err
		}
		row := t.rec
		row.Pending = append(slices.Clone(t.rec.Pending), a)
		if err := record.Replace(tx, &row); err != nil {
			return err
		}
		t.rec.Pending = row.Pending
		return nil
	})
	if err == nil {
		t.reached("share")
	}
	return a, err
}

// choiceIn returns what decides on an address of this host's share of a pool. It returns an error if the host
// may not use the share in the outage.
func (l *Local) choiceIn(tx record.Tx, def *network.Definition, pool string, outage error) (*choice, error) {
	share, err := record.ShareOf(tx, pool)
	if err == nil {
		err = l.checkShare(share, def, pool, outage)
	}
	if err != nil {
		return nil, err
	}
	c := &choice{
		share: ipam.Share{Ranges: share.Ranges, Except: share.Except}, declined: share.Declined,
		used: map[netip.Addr]bool{}, idle: map[netip.Addr]bool{}, now: boottime.Now(),
	}
	return c, c.read(tx, def.Name)
}

// checkShare returns an error if the host may not use its share of a pool.
func (l *Local) checkShare(share *record.Share, def *network.Definition, pool string, outage error) error {
	var wanted []netip.Prefix
	for _, w := range sharesOf(def) {
		if w.pool == pool {
			wanted = w.ranges
		}
	}
	store, err := l.Leases.Shared(def.Leases)
	if err != nil {
		return err
	}
	if why := share.WhyNot(wanted, store.Place()); why != "" {
		return fmt.Errorf("%w, and this host has no share of the range: %s", outage, why)
	}
	return nil
}

// choice is what decides on an address of a share.
type choice struct {
	share    ipam.Share
	declined map[netip.Addr]boottime.Instant // until when another station is taken to have it
	used     map[netip.Addr]bool             // by a container of this host
	idle     map[netip.Addr]bool             // released, with a quarantine that is not over
	now      boottime.Instant
}

// read reads what the containers of this host have and had on a network.
func (c *choice) read(tx record.Tx, network string) error {
	recs, err := record.ByNetwork(tx, network)
	if err != nil {
		return err
	}
	for _, a := range recs {
		for _, addr := range addrsOf(&a) {
			c.used[addr] = true
		}
	}
	queued, err := record.Releases(tx, math.MaxInt)
	for _, r := range queued {
		if r.Attachment.Network != network || r.Left(c.now) == 0 {
			continue
		}
		for _, addr := range addrsOf(&r.Attachment) {
			c.idle[addr] = true
		}
	}
	return err
}

// addrsOf returns the addresses that a record names.
func addrsOf(a *hook.Attachment) []netip.Addr {
	return append(a.Addresses(), a.Pending...)
}

// free reports whether no container of this host uses an address of the share, and no other station
// that is known.
func (c *choice) free(a netip.Addr) bool {
	return c.share.Contains(a) && !c.used[a] && c.declined[a] <= c.now
}

// next returns the first free address from start on. In a share without a free one, it returns the first
// in quarantine. A start outside of the share stands for one inside. The search ends early, because each
// address that is not free has a row of its own.
func (c *choice) next(p ipam.Pool, start netip.Addr, outage error) (netip.Addr, error) {
	in := ipam.Pool{Subnet: p.Subnet, Ranges: c.share.Ranges}
	if start.IsValid() && !c.share.Contains(start) {
		start = in.Start(start.String())
	}
	idle, inUse := netip.Addr{}, 0
	for _, s := range in.Spans(start) {
		for a := s.First; a.IsValid() && !s.Last.Less(a); a = a.Next() {
			switch {
			case p.Check(a) != nil:
			case !c.free(a):
				inUse++
			case !c.idle[a]:
				return a, nil
			case !idle.IsValid():
				idle = a
			}
		}
	}
	if idle.IsValid() {
		return idle, nil
	}
	return idle, fmt.Errorf("%w in this host's share %s: %d in use, and %w", ipam.ErrPoolFull,
		joinPrefixes(c.share.Ranges), inUse, outage)
}

// confirmPending claims in the store the addresses that an attachment got from this host's share. The
// error wraps ipam.ErrTaken if another host has one of them: the cluster has lost the share.
func (l *Local) confirmPending(ctx context.Context, in ipam.Shared, a hook.Attachment) (err error) {
	if len(a.Pending) == 0 {
		return nil
	}
	// It may have ended since the records were read, and another container has its address.
	if err := l.DB.View(ctx, func(tx record.Tx) error {
		_, err := record.Get(tx, a.ID)
		return err
	}); err != nil {
		if errors.Is(err, hook.ErrGone) {
			return nil
		}
		return err
	}
	lease := ipam.Lease{Owner: ownerOf(a), Name: leaseNameOf(a)}
	var confirmed []netip.Addr
	for i, p := range a.Addrs {
		if lease.Addr = p.Addr(); !slices.Contains(a.Pending, lease.Addr) {
			continue
		}
		cerr := in.Confirm(ctx, a.Pools[i], lease)
		switch {
		case cerr == nil:
			confirmed = append(confirmed, lease.Addr)
		case !errors.Is(cerr, ipam.ErrTaken):
			return cerr
		}
		err = errors.Join(err, cerr)
	}
	if len(confirmed) == 0 {
		return err
	}
	l.Log.With(a.LogAttrs()...).Info("the store has the addresses of a container that started while it was out of reach",
		"addresses", confirmed)
	rerr := l.DB.Update(ctx, func(tx record.Tx) error {
		row, rerr := record.Get(tx, a.ID)
		if rerr == nil {
			row.Pending = slices.DeleteFunc(row.Pending, func(p netip.Addr) bool { return slices.Contains(confirmed, p) })
			rerr = record.Replace(tx, &row)
		}
		return rerr
	})
	if !errors.Is(rerr, hook.ErrGone) {
		return errors.Join(err, rerr)
	}
	// It has ended, and its release may have been delivered before the lease was added. Another container
	// of this host may have the address.
	return releasePools(ctx, in, a, orphanQuarantine)
}
