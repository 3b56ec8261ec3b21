package etcdstore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lanyard-net/lanyard/ipam"
)

// shareRow is a host's share of a pool. It is attached to no etcd lease.
type shareRow struct {
	Name   string         `json:"name"` // the host's
	Host   string         `json:"host"` // Host.ID
	Pool   []byte         `json:"pool"` // its name, which need not be UTF-8
	Ranges []netip.Prefix `json:"ranges"`

	revision int64
}

func decodeShare(kv *mvccpb.KeyValue) (*shareRow, error) {
	r := &shareRow{revision: kv.ModRevision}
	if err := json.Unmarshal(kv.Value, r); err != nil || len(r.Ranges) == 0 {
		return nil, &ownError{damaged(kv.Key, kv.Value)}
	}
	return r, nil
}

func (k keys) getShares() clientv3.Op { return clientv3.OpGet(k.allShares(), clientv3.WithPrefix()) }

// sharesUnchanged is the condition that no share of the pool was added or changed since a revision.
func (k keys) sharesUnchanged(revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(k.allShares()), "<", revision+1).WithPrefix()
}

// machine is the last part of the keys of this host's shares.
func (s *Store) machine() string {
	if s.host.Machine == "" {
		return poolKey(s.host.ID)
	}
	return poolKey(s.host.Machine)
}

func (s *Store) shareKey(k keys) string { return k.allShares() + s.machine() }

// otherShares are the shares that other hosts have of a pool.
type otherShares []*shareRow

// otherShares returns the shares of other hosts among those of a read of all.
func (s *Store) otherShares(kvs []*mvccpb.KeyValue) (others otherShares, err error) {
	for _, kv := range kvs {
		if strings.HasSuffix(string(kv.Key), "/"+s.machine()) {
			continue
		}
		r, err := decodeShare(kv)
		if err != nil {
			return nil, err
		}
		others = append(others, r)
	}
	return others, nil
}

// at returns the share that has an address, or nil.
func (o otherShares) at(a netip.Addr) *shareRow {
	for _, r := range o {
		if slices.ContainsFunc(r.Ranges, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return r
		}
	}
	return nil
}

// barsClaim returns an error that wraps ipam.ErrTaken if the address is in a share.
func (o otherShares) barsClaim(a netip.Addr) error {
	if r := o.at(a); r != nil {
		return fmt.Errorf("%w: %s is reserved for host %q, which may use it while etcd is out of reach "+
			"(--on-outage slice): request another address", ipam.ErrTaken, a, r.Name)
	}
	return nil
}

// without returns the spans without the addresses of shares.
func (o otherShares) without(spans []ipam.Span) []ipam.Span {
	for _, r := range o {
		for _, p := range r.Ranges {
			var rest []ipam.Span
			for _, s := range spans {
				rest = append(rest, cut(s, p)...)
			}
			spans = rest
		}
	}
	return spans
}

// cut returns the parts of a span that are outside of a prefix.
func cut(s ipam.Span, p netip.Prefix) (rest []ipam.Span) {
	first, last := p.Masked().Addr(), ipam.Last(p)
	if first.BitLen() != s.First.BitLen() || last.Less(s.First) || s.Last.Less(first) {
		return []ipam.Span{s}
	}
	if s.First.Less(first) {
		rest = append(rest, ipam.Span{First: s.First, Last: first.Prev()})
	}
	if last.Less(s.Last) {
		rest = append(rest, ipam.Span{First: last.Next(), Last: s.Last})
	}
	return rest
}

// explain adds to the error for a full pool that hosts have shares of it.
func (o otherShares) explain(full error) error {
	if len(o) == 0 {
		return full
	}
	var names []string
	for _, r := range o {
		names = append(names, fmt.Sprintf("%q", r.Name))
	}
	slices.Sort(names)
	return fmt.Errorf("%w, and the shares of other hosts (%s)", full, strings.Join(slices.Compact(names), ", "))
}

// Reserve implements [ipam.Shares].
func (s *Store) Reserve(ctx context.Context, pool string, ranges []netip.Prefix) (share ipam.Share, err error) {
	k := s.keys(pool)
	reads := []clientv3.Op{clientv3.OpGet(s.hostKey()), k.getShares()}
	for _, r := range ranges {
		reads = append(reads, clientv3.OpGet(k.held(r.Masked().Addr()), clientv3.WithRange(k.held(ipam.Last(r))+"\x00"),
			clientv3.WithKeysOnly()))
	}
	var written bool
	err = s.change(ctx, reads, func(ctx context.Context, v view) (*write, error) {
		written = false
		if err := s.checkHistory(); err != nil {
			return nil, err
		}
		except, err := s.heldByOthers(v)
		if err != nil {
			return nil, err
		}
		share = ipam.Share{Ranges: ranges, Except: except, Cluster: v.cluster, Revision: v.revision, Place: s.Place()}
		own, err := s.checkShares(ctx, k, v.kvs[1], ranges)
		if err != nil {
			return nil, err
		}
		if own != nil && own.Host == s.host.ID && slices.Equal(own.Ranges, ranges) {
			return nil, nil
		}
		written = true
		return s.writeShare(k, own, v.revision, ranges)
	})
	if err == nil && written {
		return s.Reserve(ctx, pool, ranges) // Except has to be read after the share was written
	}
	return share, err
}

// heldByOthers returns the addresses in a read of Reserve that do not belong to this host's session.
func (s *Store) heldByOthers(v view) (except []netip.Addr, err error) {
	mine := int64(s.renewing)
	if len(v.kvs[0]) > 0 {
		mine = v.kvs[0][0].Lease
	}
	for _, kv := range slices.Concat(v.kvs[2:]...) {
		if mine != 0 && kv.Lease == mine {
			continue
		}
		a, err := addrOf(kv.Key)
		if err != nil {
			return nil, &ownError{err}
		}
		except = append(except, a)
	}
	return except, nil
}

// checkShares returns this host's share, nil if it has none, or why it cannot have the ranges.
func (s *Store) checkShares(
	ctx context.Context, k keys, kvs []*mvccpb.KeyValue, ranges []netip.Prefix,
) (own *shareRow, err error) {
	others, err := s.otherShares(kvs)
	if err != nil {
		return nil, err
	}
	for _, r := range others {
		for _, p := range r.Ranges {
			if slices.ContainsFunc(ranges, p.Overlaps) {
				return nil, &ownError{fmt.Errorf("host %q has the share %s of pool %s, which overlaps this host's share %s: give "+
					"each host another --host-slice, of the same ranges", r.Name, joined(r.Ranges), k.name, joined(ranges))}
			}
		}
	}
	for _, kv := range kvs {
		if string(kv.Key) != s.shareKey(k) {
			continue
		}
		if own, err = decodeShare(kv); err != nil || own.Host == s.host.ID {
			return own, err
		}
		// Of this host before a boot, or of a clone of it.
		resp, err := s.client.Get(ctx, s.prefix+kindHost+own.Host, clientv3.WithCountOnly())
		if err == nil && resp.Count > 0 {
			err = &ownError{fmt.Errorf("host %q has the share %s of pool %s with this host's identity: after a boot, its "+
				"session ends after the ttl; else one machine is a clone: write another /etc/lanyard/host-id there", own.Name,
				joined(own.Ranges), k.name)}
		}
		return own, err
	}
	return nil, nil
}

// writeShare writes this host's share. own is the row that it has, or nil. No share of the pool may
// have been added since a revision.
func (s *Store) writeShare(k keys, own *shareRow, revision int64, ranges []netip.Prefix) (*write, error) {
	value, err := json.Marshal(shareRow{Name: s.host.Name, Host: s.host.ID, Pool: []byte(k.name), Ranges: ranges})
	if err != nil {
		return nil, &ownError{err}
	}
	was := int64(0)
	if own != nil {
		was = own.revision
	}
	return &write{
		conditions: []clientv3.Cmp{unchanged(s.shareKey(k), was), k.sharesUnchanged(revision)},
		then:       []clientv3.Op{clientv3.OpPut(s.shareKey(k), string(value))},
	}, nil
}

// Place implements [ipam.Shares].
func (s *Store) Place() string { return s.config.place() }

// GiveBack implements [ipam.Shares].
func (s *Store) GiveBack(ctx context.Context, r ipam.Reserved) error {
	key := s.shareKey(s.keys(r.Pool))
	return s.change(ctx, []clientv3.Op{clientv3.OpGet(key)}, func(_ context.Context, v view) (*write, error) {
		if len(v.kvs[0]) == 0 || v.kvs[0][0].ModRevision != r.Revision {
			return nil, nil
		}
		return &write{
			conditions: []clientv3.Cmp{unchanged(key, r.Revision)},
			then:       []clientv3.Op{clientv3.OpDelete(key)},
		}, nil
	})
}

// Reserved implements [ipam.Shares].
func (s *Store) Reserved(ctx context.Context) (list []ipam.Reserved, err error) {
	reads := []clientv3.Op{clientv3.OpGet(s.prefix+kindShare, clientv3.WithPrefix())}
	err = s.read(ctx, reads, func(resp *clientv3.TxnResponse) error {
		list = nil
		for _, kv := range viewOf(resp).kvs[0] {
			if !strings.HasSuffix(string(kv.Key), "/"+s.machine()) {
				continue
			}
			r, err := decodeShare(kv)
			if err != nil {
				return err
			}
			list = append(list, ipam.Reserved{Pool: string(r.Pool), Ranges: r.Ranges, Revision: r.revision})
		}
		return nil
	})
	return list, err
}

// Confirm implements [ipam.Shares].
func (s *Store) Confirm(ctx context.Context, pool string, l ipam.Lease) error {
	if err := checkClaim(l); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	k := s.keys(pool)
	reads := []clientv3.Op{
		clientv3.OpGet(s.hostKey()), clientv3.OpGet(k.held(l.Addr)), clientv3.OpGet(k.idle(l.Addr)), k.getShares(),
		clientv3.OpGet(k.ownedBy(l.Owner), clientv3.WithPrefix()),
	}
	return s.claim(ctx, reads, func(ctx context.Context, v view) (*write, error) {
		in, err := s.session(v.kvs[0])
		if err != nil {
			return nil, err
		}
		held, err := decodeOne(v.kvs[1])
		if err != nil {
			return nil, &ownError{err}
		}
		others, err := s.otherShares(v.kvs[3])
		if err != nil {
			return nil, err
		}
		w := &write{}
		switch {
		case held != nil && held.Owner == l.Owner:
			if w = in.carryOver(k, held); w == nil {
				w = &write{}
			}
		case held != nil && clientv3.LeaseID(held.etcdLease) != in.lease:
			return nil, &ownError{held.BarsClaim(s.now())}
		case others.at(l.Addr) != nil:
			return nil, &ownError{others.barsClaim(l.Addr)}
		default:
			if w, err = s.replace(k, in, held, v, l); err != nil {
				return nil, err
			}
		}
		if err := s.endOthers(ctx, k, w, v, l.Owner, l.Addr); err != nil || len(w.then) == 0 {
			return nil, err
		}
		return w, nil
	})
}

// replace leases l's address to its owner. held is the lease of another owner of this host, or nil.
func (s *Store) replace(k keys, in session, held *row, v view, l ipam.Lease) (*write, error) {
	idle, err := decodeOne(v.kvs[2])
	if err != nil {
		return nil, &ownError{err}
	}
	w, err := s.take(k, in, held, idle, l, k.sharesUnchanged(v.revision))
	if err == nil && held != nil {
		w.then = append(w.then, clientv3.OpDelete(k.owner(&held.Lease)))
	}
	return w, err
}

// endOthers adds to w the end of the leases that the owner has besides that of an address.
func (s *Store) endOthers(
	ctx context.Context, k keys, w *write, v view, o ipam.Owner, keep netip.Addr,
) error {
	for _, owned := range v.kvs[4] {
		a, err := addrOf(owned.Key)
		if err != nil {
			return &ownError{err}
		}
		if a == keep {
			continue
		}
		end, err := s.endOwned(ctx, k, owned, o, v.revision, 0)
		if err != nil {
			return err
		}
		w.conditions, w.then = append(w.conditions, end.conditions...), append(w.then, end.then...)
	}
	return nil
}

// joined returns prefixes, separated by ", ".
func joined(ps []netip.Prefix) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}
