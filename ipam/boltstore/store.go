package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

var _ ipam.Store = (*DB)(nil)

// Claim implements [ipam.Store].
func (db *DB) Claim(ctx context.Context, name string, l ipam.Lease) error {
	return db.change(ctx, name, func(p *pool) error {
		old, err := p.lease(l.Addr)
		if err != nil {
			return err
		}
		if old != nil {
			switch {
			case old.State == ipam.Held && old.Owner == l.Owner:
				return nil
			case old.State != ipam.Quarantined || l.Name == "" || old.Name != l.Name || old.MAC != l.MAC:
				return fmt.Errorf("%w: %s %s", ipam.ErrTaken, l.Addr, holder(*old))
			}
			if err := p.remove(*old); err != nil {
				return err
			}
		}
		l.State, l.Until = ipam.Held, time.Time{}
		return p.put(l)
	})
}

// holder says what is known of who has an address.
func holder(l ipam.Lease) string {
	switch l.State {
	case ipam.Quarantined:
		return "was released a moment ago, and is quarantined until " + l.Until.UTC().Format(time.TimeOnly) + " UTC"
	case ipam.Declined:
		return "is held by somebody else on the LAN; it is tried again after " + l.Until.UTC().Format(time.TimeOnly) + " UTC"
	}
	if l.Name != "" {
		return fmt.Sprintf("is held by %q (attachment %s)", l.Name, l.Owner.Attachment)
	}
	return "is held by attachment " + l.Owner.Attachment
}

// Next implements [ipam.Store].
func (db *DB) Next(ctx context.Context, name string, in ipam.Pool, l ipam.Lease) (got netip.Addr, err error) {
	err = db.change(ctx, name, func(p *pool) error {
		mine, err := p.held(l.Owner)
		if err != nil {
			return err
		}
		if len(mine) > 0 {
			got = mine[0]
			return nil
		}
		var last uint64
		cursor := p.state.Get(keyCursor)
		if cursor != nil {
			last = binary.BigEndian.Uint64(cursor)
		}
		if got = p.search(in, in.Spans(last, cursor == nil)); !got.IsValid() {
			c := p.counts
			return fmt.Errorf("%w in subnet %s: %d held, %d in quarantine, %d held by others on the LAN", ipam.ErrPoolFull, in.Subnet, c.Held, c.Quarantined, c.Declined)
		}
		if err := p.state.Put(keyCursor, binary.BigEndian.AppendUint64(nil, in.Offset(got))); err != nil {
			return err
		}
		l.Addr, l.State, l.Until = got, ipam.Held, time.Time{}
		return p.put(l)
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return got, nil
}

// Release implements [ipam.Store].
func (db *DB) Release(ctx context.Context, name string, o ipam.Owner, quarantine time.Duration) error {
	return db.change(ctx, name, func(p *pool) error {
		mine, err := p.held(o)
		if err != nil {
			return err
		}
		for _, a := range mine {
			if err := p.end(a, ipam.Quarantined, quarantine); err != nil {
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
		if err != nil {
			return err
		}
		if l == nil || l.State != ipam.Held || l.Owner != o {
			return fmt.Errorf("decline %s: it is not held by attachment %s", a, o.Attachment)
		}
		return p.end(a, ipam.Declined, d)
	})
}

// end takes an address from its holder, and keeps it from others for a while.
func (p *pool) end(a netip.Addr, s ipam.State, d time.Duration) error {
	l, err := p.lease(a)
	if err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("%w: %s has an owner and no lease", ipam.ErrCorrupt, a)
	}
	if err := p.remove(*l); err != nil || d <= 0 {
		return err
	}
	l.State, l.Until = s, p.now.Add(d)
	return p.put(*l)
}

// Leases implements [ipam.Store].
func (db *DB) Leases(ctx context.Context, name string) (leases []ipam.Lease, err error) {
	err = db.read(ctx, name, func(p *pool) error {
		return p.leases.ForEach(func(k, _ []byte) error {
			a, _ := netip.AddrFromSlice(k)
			l, err := p.lease(a)
			if err == nil && (l.State == ipam.Held || l.Until.After(p.now)) {
				leases = append(leases, *l)
			}
			return err
		})
	})
	return leases, err
}

// Count implements [ipam.Store].
func (db *DB) Count(ctx context.Context, name string) (c ipam.Counts, err error) {
	err = db.read(ctx, name, func(p *pool) error {
		c = p.counts
		return p.ends.ForEach(func(k, _ []byte) error {
			if binary.BigEndian.Uint64(k) > uint64(p.now.UnixNano()) {
				return nil
			}
			a, _ := netip.AddrFromSlice(k[8:])
			l, err := p.lease(a)
			if err != nil || l == nil {
				return err
			}
			if l.State == ipam.Quarantined {
				c.Quarantined--
			} else {
				c.Declined--
			}
			return nil
		})
	})
	return c, err
}

// RemovePool implements [ipam.Store].
func (db *DB) RemovePool(ctx context.Context, name string) error {
	return db.Update(ctx, func(t *Tx) error {
		pools := t.tx.Bucket(bucketPools)
		if pools == nil || pools.Bucket([]byte(name)) == nil {
			return nil
		}
		return pools.DeleteBucket([]byte(name))
	})
}

func (db *DB) change(ctx context.Context, name string, f func(*pool) error) error {
	return db.Update(ctx, func(t *Tx) error {
		p, err := makePool(t.tx, name, t.now)
		if err != nil {
			return err
		}
		return f(p)
	})
}

// read runs f if there is such a pool.
func (db *DB) read(ctx context.Context, name string, f func(*pool) error) error {
	return db.View(ctx, func(t *Tx) error {
		p, err := openPool(t.tx, name, t.now)
		if err != nil || p == nil {
			return err
		}
		return f(p)
	})
}
