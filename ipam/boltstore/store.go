package boltstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/lanyard-net/lanyard/ipam"
)

var _ ipam.Store = (*DB)(nil)

// Claim implements [ipam.Store].
func (db *DB) Claim(ctx context.Context, name string, l ipam.Lease) error {
	if !l.Addr.IsValid() {
		return errors.New("claim: no address")
	}
	if err := l.Validate(); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	return db.change(ctx, name, func(p *pool) error {
		old, err := p.lease(l.Addr)
		if err != nil {
			return err
		}
		if old != nil && old.State == ipam.Held && old.Owner == l.Owner {
			return nil
		}
		if old != nil {
			if err := p.byWall(*old).BarsClaim(p.now.Add(p.wall)); err != nil {
				return err
			}
		}
		return p.take(old, l)
	})
}

// take leases l's address to its owner. old is the existing row of that address, or nil; the caller
// has checked that it does not bar the lease.
func (p *pool) take(old *ipam.Lease, l ipam.Lease) error {
	if old != nil {
		if err := p.remove(*old); err != nil {
			return err
		}
	}
	l.State, l.Until = ipam.Held, time.Time{}
	return p.put(l)
}

// Next implements [ipam.Store].
func (db *DB) Next(ctx context.Context, name string, in ipam.Pool, l ipam.Lease) (got netip.Addr, err error) {
	if err := in.Validate(); err != nil {
		return got, err
	}
	if err := l.Validate(); err != nil {
		return got, fmt.Errorf("claim: %w", err)
	}
	err = db.change(ctx, name, func(p *pool) error {
		mine, err := p.held(l.Owner)
		if err != nil {
			return err
		}
		if len(mine) > 0 {
			got = mine[0].Addr
			return nil
		}
		got, err = p.next(in, l)
		return err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return got, nil
}

func (p *pool) next(in ipam.Pool, l ipam.Lease) (netip.Addr, error) {
	start, given := l.Addr, l.Addr.IsValid()
	if last, ok := netip.AddrFromSlice(p.state.Get(keyCursor)); ok && !given {
		start = last.Next()
	}
	spans := in.Spans(start)
	if given && spans[0].First == start && in.Check(start) == nil {
		// An address in quarantine that the holder may take back has its bit set: search would skip
		// it.
		old, err := p.lease(start)
		if err != nil {
			return netip.Addr{}, err
		}
		if old != nil && old.FreeFor(l, p.now) {
			return start, p.take(old, l)
		}
	}
	got := p.search(in, spans)
	for !got.IsValid() {
		n, err := p.expire(math.MaxInt)
		if err != nil {
			return got, err
		}
		if n == 0 {
			return p.takeQuarantined(in, l)
		}
		got = p.search(in, spans)
	}
	if !given {
		if err := p.state.Put(keyCursor, got.AsSlice()); err != nil {
			return got, err
		}
	}
	l.Addr = got
	return got, p.take(nil, l)
}

// takeQuarantined leases a quarantined address of a pool without a free one: the last address of
// l's holder, else the address with the quarantine that ends first.
func (p *pool) takeQuarantined(in ipam.Pool, l ipam.Lease) (netip.Addr, error) {
	var best *ipam.Lease
	for k := range withPrefix(p.ends, nil) { // in the order of their ends
		_, a, err := endOf(k)
		if err != nil {
			return a, err
		}
		old, err := p.ending(a)
		if err != nil {
			return a, err
		}
		if old.State != ipam.Quarantined || !in.InRanges(old.Addr) || in.Check(old.Addr) != nil {
			continue
		}
		if best == nil {
			best = old
		}
		if old.FreeFor(l, p.now) {
			best = old
			break
		}
	}
	if best == nil {
		return netip.Addr{}, p.counts.Full(in)
	}
	l.Addr = best.Addr
	return l.Addr, p.take(best, l)
}

// Release implements [ipam.Store].
func (db *DB) Release(ctx context.Context, name string, o ipam.Owner, quarantine time.Duration) error {
	return db.change(ctx, name, func(p *pool) error {
		mine, err := p.held(o)
		if err != nil {
			return err
		}
		for _, l := range mine {
			if err := p.end(l, ipam.Quarantined, quarantine); err != nil {
				return err
			}
		}
		return nil
	})
}

// Decline implements [ipam.Store].
func (db *DB) Decline(ctx context.Context, name string, a netip.Addr, o ipam.Owner, d time.Duration) error {
	return db.change(ctx, name, func(p *pool) error {
		l, err := p.lease(a)
		switch {
		case err != nil:
			return err
		case l == nil || l.Owner != o || l.State == ipam.Quarantined:
			return fmt.Errorf("decline %s: it is not held by attachment %s", a, o.Attachment)
		case l.State == ipam.Declined:
			return nil
		}
		return p.end(*l, ipam.Declined, d)
	})
}

// end ends a held lease. The address stays in state s for d, or is free at once if d is 0.
func (p *pool) end(l ipam.Lease, s ipam.State, d time.Duration) error {
	if err := p.remove(l); err != nil || d <= 0 {
		return err
	}
	l.State, l.Until = s, p.now.Add(d)
	return p.put(l)
}

// Leases implements [ipam.Store].
func (db *DB) Leases(ctx context.Context, name string) (leases []ipam.Lease, err error) {
	err = db.read(ctx, name, func(p *pool) error {
		for k, v := range withPrefix(p.leases, nil) {
			l, err := decode(k, v)
			if err != nil {
				return err
			}
			if !l.Over(p.now) {
				leases = append(leases, p.byWall(l))
			}
		}
		return nil
	})
	return leases, err
}

// Count implements [ipam.Store].
func (db *DB) Count(ctx context.Context, name string) (c ipam.Counts, err error) {
	err = db.read(ctx, name, func(p *pool) error {
		c = p.counts
		for k := range withPrefix(p.ends, nil) {
			l, err := p.ended(k)
			if l == nil || err != nil {
				return err
			}
			c.Add(l.State, -1)
		}
		return nil
	})
	return c, err
}

// RemovePool implements [ipam.Store].
func (db *DB) RemovePool(ctx context.Context, names ...string) error {
	return db.Update(ctx, func(t *Tx) error {
		for _, name := range names {
			err := t.tx.DeleteBucket([]byte(poolPrefix + name))
			if err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
				return err
			}
		}
		return nil
	})
}

// change runs f on the pool in a transaction. Before that it creates the pool if it does not exist,
// and frees leases that have run out.
func (db *DB) change(ctx context.Context, name string, f func(*pool) error) error {
	return db.Update(ctx, func(t *Tx) error {
		p, err := makePool(t, name)
		if err != nil {
			return err
		}
		if _, err := p.expire(expireAtOnce); err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
		return p.close()
	})
}

// read runs f on the pool in a read-only transaction. It does not run f if the pool does not exist.
func (db *DB) read(ctx context.Context, name string, f func(*pool) error) error {
	return db.View(ctx, func(t *Tx) error {
		p, err := openPool(t, name)
		if err != nil || p == nil {
			return err
		}
		return f(p)
	})
}
