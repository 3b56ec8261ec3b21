package etcdstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-net/lanyard/ipam"
)

// Next implements [ipam.Store].
func (s *Store) Next(ctx context.Context, pool string, in ipam.Pool, l ipam.Lease) (got netip.Addr, err error) {
	if err := in.Validate(); err != nil {
		return got, err
	}
	if err := l.Validate(); err != nil {
		return got, fmt.Errorf("claim: %w", err)
	}
	k := s.keys(pool)
	reads := []clientv3.Op{
		clientv3.OpGet(s.hostKey()), clientv3.OpGet(k.next()), clientv3.OpGet(k.ownedBy(l.Owner), clientv3.WithPrefix()),
		k.getShares(),
	}
	tries := 0
	err = s.claim(ctx, reads, func(ctx context.Context, v view) (*write, error) {
		tries++
		session, err := s.session(v.kvs[0])
		if err != nil {
			return nil, err
		}
		for _, owned := range slices.SortedFunc(slices.Values(v.kvs[2]), compareAddrs) {
			r, err := s.heldAt(ctx, k, owned, l.Owner, v.revision)
			if err != nil {
				return nil, err
			}
			if r != nil {
				got = r.Addr
				return session.carryOver(k, r), nil
			}
		}
		others, err := s.otherShares(v.kvs[3])
		if err != nil {
			return nil, err
		}
		n := search{s, k, in, l, v.revision, skip(tries), others}
		found, idle, moves, err := n.find(ctx, v.kvs[1])
		if err != nil {
			return nil, err
		}
		l := l
		l.Addr, got = found, found
		w, err := s.take(k, session, nil, idle, l, k.sharesUnchanged(v.revision))
		if err != nil {
			return nil, err
		}
		noMore := clientv3.Compare(clientv3.ModRevision(k.ownedBy(l.Owner)), "<", v.revision+1).WithPrefix()
		w.conditions = append(w.conditions, noMore)
		if moves {
			w.then = append(w.then, clientv3.OpPut(k.next(), addrKey(found)))
		}
		return w, nil
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return got, nil
}

// compareAddrs orders keys that end with an address by it. Keys that do not are found when they are
// decoded.
func compareAddrs(a, b *mvccpb.KeyValue) int {
	x, _ := addrOf(a.Key)
	y, _ := addrOf(b.Key)
	return x.Compare(y)
}

// maxSkip limits the addresses that a repeated search passes over.
const maxSkip = 256

// skip returns how many addresses to pass over in the search number tries: none in the first two.
// Another host has got each address that was found until then, so that many hosts look for the next
// address at this moment: each looks somewhere else. What is passed over is leased later.
func skip(tries int) int {
	if tries < 3 {
		return 0
	}
	return rand.IntN(min(1<<min(tries, 10), maxSkip))
}

// search looks for an address that Next may lease, as the pool was at a revision.
type search struct {
	*Store
	k        keys
	in       ipam.Pool
	l        ipam.Lease
	revision int64
	skip     int // addresses to pass over after the one that Next leased last
	others   otherShares
}

// find returns the address to lease, and its row if it has one that is not held. cursor is the read
// of the address that Next leased last. moves reports whether the found address is the next cursor.
func (n *search) find(ctx context.Context, cursor []*mvccpb.KeyValue) (a netip.Addr, idle *row, moves bool, err error) {
	start, given := n.l.Addr, n.l.Addr.IsValid()
	if !given && len(cursor) > 0 {
		last, err := addrOf(append([]byte("/"), cursor[0].Value...))
		if err != nil {
			return a, nil, false, &ownError{damaged(cursor[0].Key, cursor[0].Value)}
		}
		start = last.Next()
		for range n.skip {
			if further := start.Next(); n.in.Subnet.Contains(further) {
				start = further
			}
		}
	}
	for _, span := range n.others.without(n.in.Spans(start)) {
		a, idle, err := n.freeIn(ctx, span, given)
		if err != nil || a.IsValid() {
			return a, idle, !given, err
		}
	}
	idle, err = n.quarantined(ctx)
	if err != nil {
		return a, nil, false, err
	}
	return idle.Addr, idle, false, nil
}

// The numbers of keys that a search reads at once: mostly the first address that it looks at is
// free; in a pool that is nearly full, it may be far.
const (
	firstPage = 16
	otherPage = 1000
)

// freeIn returns the first address of a span that is free, with its row if it has one. It returns
// the zero Addr if all are in use.
func (n *search) freeIn(ctx context.Context, s ipam.Span, given bool) (netip.Addr, *row, error) {
	page := int64(firstPage)
	for a := s.First; a.IsValid() && !s.Last.Less(a); page = otherPage {
		p, err := n.read(ctx, a, s.Last, page)
		if err != nil {
			return netip.Addr{}, nil, err
		}
		for ; a.IsValid() && !p.end.Less(a); a = a.Next() {
			idle := p.idle[a]
			free := idle == nil || idle.Over(n.now()) || given && a == n.l.Addr && idle.FreeFor(n.l, n.now())
			if !p.held[a] && free && n.in.Check(a) == nil {
				return a, idle, nil
			}
		}
	}
	return netip.Addr{}, nil, nil
}

// taken are the rows of the addresses from one to end.
type taken struct {
	end  netip.Addr
	held map[netip.Addr]bool
	idle map[netip.Addr]*row
}

// read reads the rows from an address on, up to last, and at most a page of each kind.
func (n *search) read(ctx context.Context, from, last netip.Addr, page int64) (*taken, error) {
	at, limit := clientv3.WithRev(n.revision), clientv3.WithLimit(page)
	resp, err := n.client.Txn(ctx).Then(
		clientv3.OpGet(n.k.held(from), clientv3.WithRange(n.k.held(last)+"\x00"), clientv3.WithKeysOnly(), at, limit),
		clientv3.OpGet(n.k.idle(from), clientv3.WithRange(n.k.idle(last)+"\x00"), at, limit),
	).Commit()
	if err != nil {
		return nil, err
	}
	t := &taken{end: last, held: map[netip.Addr]bool{}, idle: map[netip.Addr]*row{}}
	for i, r := range resp.Responses {
		answer := r.GetResponseRange()
		for _, kv := range answer.Kvs {
			a, err := addrOf(kv.Key)
			if err != nil {
				return nil, &ownError{err}
			}
			if i == 0 {
				t.held[a] = true
			} else if r, err := decode(kv); err != nil {
				return nil, &ownError{err}
			} else {
				t.idle[a] = &r
			}
			if answer.More && a.BitLen() == last.BitLen() && a.Less(t.end) && kv == answer.Kvs[len(answer.Kvs)-1] {
				t.end = a
			}
		}
	}
	return t, nil
}

// quarantined returns the row of a quarantined address to lease in a pool without a free one: that of
// the address that n.l's holder had last, else the one with the quarantine that ends first.
func (n *search) quarantined(ctx context.Context) (best *row, err error) {
	resp, err := n.client.Txn(ctx).Then(n.countReads(n.k, n.revision)...).Commit()
	if err != nil {
		return nil, err
	}
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		r, err := decode(kv)
		if err != nil {
			return nil, &ownError{err}
		}
		if r.State != ipam.Quarantined || !n.in.InRanges(r.Addr) || n.in.Check(r.Addr) != nil ||
			n.others.at(r.Addr) != nil {
			continue
		}
		if r.FreeFor(n.l, n.now()) {
			return &r, nil
		}
		if best == nil || r.Until.Before(best.Until) {
			best = &r
		}
	}
	if best == nil {
		c, err := n.counts(resp)
		if err != nil {
			return nil, err
		}
		return nil, &ownError{n.others.explain(c.Full(n.in))}
	}
	return best, nil
}
