package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-net/lanyard/ipam"
)

// checkClaim returns an error for a lease without an address, or with one that cannot be stored.
func checkClaim(l ipam.Lease) error {
	if !l.Addr.IsValid() {
		return errors.New("no address")
	}
	return l.Validate()
}

// Claim implements [ipam.Store].
func (s *Store) Claim(ctx context.Context, pool string, l ipam.Lease) error {
	if err := checkClaim(l); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	k := s.keys(pool)
	reads := []clientv3.Op{
		clientv3.OpGet(s.hostKey()), clientv3.OpGet(k.held(l.Addr)), clientv3.OpGet(k.idle(l.Addr)), k.getShares(),
	}
	return s.claim(ctx, reads, func(_ context.Context, v view) (*write, error) {
		in, err := s.session(v.kvs[0])
		if err != nil {
			return nil, err
		}
		held, err := decodeOne(v.kvs[1])
		if err != nil {
			return nil, &ownError{err}
		}
		idle, err := decodeOne(v.kvs[2])
		if err != nil {
			return nil, &ownError{err}
		}
		switch {
		case held != nil && held.Owner == l.Owner:
			return in.carryOver(k, held), nil
		case held != nil:
			return nil, &ownError{held.BarsClaim(s.now())}
		case idle != nil:
			if err := idle.BarsClaim(s.now()); err != nil {
				return nil, &ownError{err}
			}
		}
		others, err := s.otherShares(v.kvs[3])
		if err != nil {
			return nil, err
		}
		if err := others.barsClaim(l.Addr); err != nil {
			return nil, &ownError{err}
		}
		return s.take(k, in, nil, idle, l, k.sharesUnchanged(v.revision))
	})
}

// take leases l's address to its owner, in a session, if more holds. held and idle are the rows of the
// address, or nil.
func (s *Store) take(k keys, in session, held, idle *row, l ipam.Lease, more clientv3.Cmp) (*write, error) {
	l.State, l.Until, l.Host = ipam.Held, time.Time{}, s.host.Name
	value, err := k.encode(l)
	if err != nil {
		return nil, &ownError{err}
	}
	was := int64(0)
	if held != nil {
		was = held.revision
	}
	w := &write{
		conditions: []clientv3.Cmp{in.exists, unchanged(k.held(l.Addr), was), more},
		then: []clientv3.Op{
			clientv3.OpPut(k.held(l.Addr), value, clientv3.WithLease(in.lease)),
			clientv3.OpPut(k.owner(&l), "", clientv3.WithLease(in.lease)),
		},
	}
	if idle == nil {
		w.conditions = append(w.conditions, absent(k.idle(l.Addr)))
	} else {
		w.conditions = append(w.conditions, unchanged(k.idle(l.Addr), idle.revision))
		w.then = append(w.then, clientv3.OpDelete(k.idle(l.Addr)))
	}
	return w, nil
}

// carryOver returns what attaches a lease of an earlier session to this one; nil if it is of this
// one.
func (in session) carryOver(k keys, r *row) *write {
	if clientv3.LeaseID(r.etcdLease) == in.lease {
		return nil
	}
	value, err := k.encode(r.Lease)
	if err != nil {
		return nil // it was decoded: it can be encoded
	}
	return &write{
		conditions: []clientv3.Cmp{in.exists, unchanged(k.held(r.Addr), r.revision)},
		then: []clientv3.Op{
			clientv3.OpPut(k.held(r.Addr), value, clientv3.WithLease(in.lease)),
			clientv3.OpPut(k.owner(&r.Lease), "", clientv3.WithLease(in.lease)),
		},
	}
}

// Release implements [ipam.Store].
func (s *Store) Release(ctx context.Context, pool string, o ipam.Owner, quarantine time.Duration) error {
	k := s.keys(pool)
	reads := []clientv3.Op{clientv3.OpGet(k.ownedBy(o), clientv3.WithPrefix())}
	return s.change(ctx, reads, func(ctx context.Context, v view) (*write, error) {
		if len(v.kvs[0]) == 0 {
			return nil, nil
		}
		all := &write{}
		for _, owned := range v.kvs[0] {
			w, err := s.endOwned(ctx, k, owned, o, v.revision, quarantine)
			if err != nil {
				return nil, err
			}
			all.conditions, all.then = append(all.conditions, w.conditions...), append(all.then, w.then...)
		}
		return all, nil
	})
}

// endOwned ends the lease that a key of an owner stands for. Without one, it removes the key.
func (s *Store) endOwned(
	ctx context.Context, k keys, owned *mvccpb.KeyValue, o ipam.Owner, revision int64, quarantine time.Duration,
) (*write, error) {
	r, err := s.heldAt(ctx, k, owned, o, revision)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return &write{[]clientv3.Cmp{unchanged(string(owned.Key), owned.ModRevision)},
			[]clientv3.Op{clientv3.OpDelete(string(owned.Key))}}, nil
	}
	return s.end(k, r, ipam.Quarantined, quarantine)
}

// heldAt returns the lease that a key of an owner stands for, at a revision. It returns nil if the owner
// does not have the lease: it was deleted by hand, and another owner may have the address.
func (s *Store) heldAt(
	ctx context.Context, k keys, owned *mvccpb.KeyValue, o ipam.Owner, revision int64,
) (*row, error) {
	a, err := addrOf(owned.Key)
	if err != nil {
		return nil, &ownError{err}
	}
	resp, err := s.client.Get(ctx, k.held(a), clientv3.WithRev(revision))
	if err != nil {
		return nil, err
	}
	r, err := decodeOne(resp.Kvs)
	if err != nil {
		return nil, &ownError{err}
	}
	if r == nil || r.Owner != o {
		return nil, nil
	}
	return r, nil
}

// Decline implements [ipam.Store].
func (s *Store) Decline(ctx context.Context, pool string, a netip.Addr, o ipam.Owner, d time.Duration) error {
	k := s.keys(pool)
	reads := []clientv3.Op{clientv3.OpGet(k.held(a)), clientv3.OpGet(k.idle(a))}
	return s.change(ctx, reads, func(_ context.Context, v view) (*write, error) {
		held, err := decodeOne(v.kvs[0])
		if err != nil {
			return nil, &ownError{err}
		}
		if held != nil && held.Owner == o {
			return s.end(k, held, ipam.Declined, d)
		}
		idle, err := decodeOne(v.kvs[1])
		switch {
		case err != nil:
			return nil, &ownError{err}
		case idle == nil || idle.Owner != o || idle.State != ipam.Declined:
			return nil, &ownError{fmt.Errorf("decline %s: it is not held by attachment %s", a, o.Attachment)}
		}
		return nil, nil
	})
}

// end ends a held lease. The address stays in a state for d, or is free at once if d is 0.
func (s *Store) end(k keys, r *row, state ipam.State, d time.Duration) (*write, error) {
	w := &write{
		conditions: []clientv3.Cmp{unchanged(k.held(r.Addr), r.revision)},
		then:       []clientv3.Op{clientv3.OpDelete(k.held(r.Addr)), clientv3.OpDelete(k.owner(&r.Lease))},
	}
	if d <= 0 {
		return w, nil
	}
	l := r.Lease
	l.State, l.Until = state, s.now().Add(d)
	value, err := k.encode(l)
	if err != nil {
		return nil, &ownError{err}
	}
	w.then = append(w.then, clientv3.OpPut(k.idle(l.Addr), value))
	return w, nil
}

// Leases implements [ipam.Store].
func (s *Store) Leases(ctx context.Context, pool string) (leases []ipam.Lease, err error) {
	k := s.keys(pool)
	reads := []clientv3.Op{
		clientv3.OpGet(k.allHeld(), clientv3.WithPrefix()), clientv3.OpGet(k.allIdle(), clientv3.WithPrefix()),
	}
	err = s.read(ctx, reads, func(resp *clientv3.TxnResponse) error {
		leases = nil
		for _, kv := range slices.Concat(viewOf(resp).kvs...) {
			r, err := decode(kv)
			if err != nil {
				return &ownError{err}
			}
			if !r.Over(s.now()) {
				leases = append(leases, r.Lease)
			}
		}
		return nil
	})
	slices.SortFunc(leases, func(a, b ipam.Lease) int { return a.Addr.Compare(b.Addr) })
	return leases, err
}

// Count implements [ipam.Store]. The cluster counts the held addresses and sends their number.
func (s *Store) Count(ctx context.Context, pool string) (c ipam.Counts, err error) {
	err = s.read(ctx, s.countReads(s.keys(pool), 0), func(resp *clientv3.TxnResponse) (err error) {
		c, err = s.counts(resp)
		return err
	})
	return c, err
}

// countReads returns the reads for counts, at a revision; 0: now.
func (s *Store) countReads(k keys, revision int64) []clientv3.Op {
	at := clientv3.WithRev(revision)
	return []clientv3.Op{
		clientv3.OpGet(k.allHeld(), clientv3.WithPrefix(), clientv3.WithCountOnly(), at),
		clientv3.OpGet(k.allIdle(), clientv3.WithPrefix(), at),
	}
}

func (s *Store) counts(resp *clientv3.TxnResponse) (c ipam.Counts, err error) {
	c.Held = int(resp.Responses[0].GetResponseRange().Count)
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		r, err := decode(kv)
		if err != nil {
			return c, &ownError{err}
		}
		if !r.Over(s.now()) {
			c.Add(r.State, 1)
		}
	}
	return c, nil
}

// RemovePool implements [ipam.Store].
func (s *Store) RemovePool(ctx context.Context, pools ...string) error {
	var then []clientv3.Op
	for _, pool := range pools {
		k := s.keys(pool)
		then = append(then, clientv3.OpDelete(k.next()), clientv3.OpDelete(k.allHeld(), clientv3.WithPrefix()),
			clientv3.OpDelete(k.allIdle(), clientv3.WithPrefix()), clientv3.OpDelete(k.allOwners(), clientv3.WithPrefix()))
	}
	return s.change(ctx, nil, func(context.Context, view) (*write, error) { return &write{then: then}, nil })
}
