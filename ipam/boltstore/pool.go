package boltstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"github.com/lanyard-net/lanyard/ipam"
)

// A pool is a bucket of buckets:
//
//	leases  address → Lease as JSON
//	owners  owner, NUL, address → nothing
//	blocks  address >> 12 → 4096 bits: taken or not
//	ends    when it ends, address → nothing: quarantined and declined ones
//	state   cursor, counts
//
// The bits make the next free address cost the same in a full pool as in an
// empty one: a block of 4096 addresses is one read.
var (
	bucketPools = []byte("pools")
	inLeases    = []byte("leases")
	inOwners    = []byte("owners")
	inBlocks    = []byte("blocks")
	inEnds      = []byte("ends")
	inState     = []byte("state")
	keyCursor   = []byte("cursor")
	keyCounts   = []byte("counts")
)

const blockBits = 12 // a block's bitmap is 512 bytes: a small row in a 4 KiB page

// pool is one pool within a transaction.
type pool struct {
	now                                 time.Time
	leases, owners, blocks, ends, state *bbolt.Bucket
	counts                              ipam.Counts
}

// openPool finds the pool, nil if there is none.
func openPool(tx *bbolt.Tx, name string, now time.Time) (*pool, error) {
	pools := tx.Bucket(bucketPools)
	if pools == nil {
		return nil, nil
	}
	b := pools.Bucket([]byte(name))
	if b == nil {
		return nil, nil
	}
	p := &pool{now: now, leases: b.Bucket(inLeases), owners: b.Bucket(inOwners), blocks: b.Bucket(inBlocks), ends: b.Bucket(inEnds), state: b.Bucket(inState)}
	if v := p.state.Get(keyCounts); v != nil {
		if err := json.Unmarshal(v, &p.counts); err != nil {
			return nil, fmt.Errorf("%w: counts of pool %q: %w", ipam.ErrCorrupt, name, err)
		}
	}
	return p, nil
}

// makePool finds or makes the pool, and frees what has run out.
func makePool(tx *bbolt.Tx, name string, now time.Time) (*pool, error) {
	pools, err := tx.CreateBucketIfNotExists(bucketPools)
	if err != nil {
		return nil, err
	}
	b, err := pools.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return nil, err
	}
	for _, in := range [][]byte{inLeases, inOwners, inBlocks, inEnds, inState} {
		if _, err := b.CreateBucketIfNotExists(in); err != nil {
			return nil, err
		}
	}
	p, err := openPool(tx, name, now)
	if err != nil {
		return nil, err
	}
	return p, p.expire()
}

// expire frees what is out of quarantine. It reads one key where there is none.
func (p *pool) expire() error {
	for {
		k, _ := p.ends.Cursor().First()
		if k == nil || binary.BigEndian.Uint64(k) > uint64(p.now.UnixNano()) {
			return nil
		}
		a, ok := netip.AddrFromSlice(k[8:])
		if !ok {
			return fmt.Errorf("%w: end of a quarantine %x", ipam.ErrCorrupt, k)
		}
		l, err := p.lease(a)
		if err != nil {
			return err
		}
		if l == nil {
			return fmt.Errorf("%w: quarantine of %s without a lease", ipam.ErrCorrupt, a)
		}
		if err := p.remove(*l); err != nil {
			return err
		}
	}
}

// lease gives the row of an address, nil if it is free.
func (p *pool) lease(a netip.Addr) (*ipam.Lease, error) {
	v := p.leases.Get(a.AsSlice())
	if v == nil {
		return nil, nil
	}
	var l ipam.Lease
	if err := json.Unmarshal(v, &l); err != nil {
		return nil, fmt.Errorf("%w: lease of %s: %w", ipam.ErrCorrupt, a, err)
	}
	return &l, nil
}

// put writes a lease and all that finds it. The address must be free.
func (p *pool) put(l ipam.Lease) error {
	v, err := json.Marshal(l)
	if err != nil {
		return err
	}
	key := l.Addr.AsSlice()
	if err := p.leases.Put(key, v); err != nil {
		return err
	}
	if l.State == ipam.Held {
		err = p.owners.Put(ownerKey(l.Owner, key), []byte{})
	} else {
		err = p.ends.Put(endKey(l.Until, key), []byte{})
	}
	return errors.Join(err, p.mark(l.Addr, true), p.count(l.State, 1))
}

// remove is the opposite of put.
func (p *pool) remove(l ipam.Lease) error {
	key := l.Addr.AsSlice()
	err := p.leases.Delete(key)
	if l.State == ipam.Held {
		err = errors.Join(err, p.owners.Delete(ownerKey(l.Owner, key)))
	} else {
		err = errors.Join(err, p.ends.Delete(endKey(l.Until, key)))
	}
	return errors.Join(err, p.mark(l.Addr, false), p.count(l.State, -1))
}

func (p *pool) count(s ipam.State, by int) error {
	switch s {
	case ipam.Held:
		p.counts.Held += by
	case ipam.Quarantined:
		p.counts.Quarantined += by
	case ipam.Declined:
		p.counts.Declined += by
	}
	v, err := json.Marshal(p.counts)
	if err != nil {
		return err
	}
	return p.state.Put(keyCounts, v)
}

// held gives the addresses of an owner.
func (p *pool) held(o ipam.Owner) (addrs []netip.Addr, err error) {
	prefix := ownerKey(o, nil)
	c := p.owners.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		a, ok := netip.AddrFromSlice(k[len(prefix):])
		if !ok {
			return nil, fmt.Errorf("%w: owner %q", ipam.ErrCorrupt, k)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// ownerKey quotes nothing: none of the fields can hold a NUL (network and
// interface names cannot, attachment ids are hex).
func ownerKey(o ipam.Owner, addr []byte) []byte {
	return append([]byte(o.Attachment+"\x00"+o.Network+"\x00"+o.Interface+"\x00"), addr...)
}

func endKey(until time.Time, addr []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), addr...)
}

// blockOf gives the key of an address's block, and its bit there. The key is
// the address without its last 12 bits, so that no subnet has to be known.
func blockOf(a netip.Addr) (key []byte, bit int) {
	b := a.AsSlice()
	n := len(b)
	bit = int(b[n-2]&0x0f)<<8 | int(b[n-1])
	b[n-2] &^= 0x0f
	return b[:n-1], bit
}

func (p *pool) mark(a netip.Addr, taken bool) error {
	key, bit := blockOf(a)
	block := make([]byte, 1<<blockBits/8)
	copy(block, p.blocks.Get(key))
	if taken {
		block[bit/8] |= 1 << (bit % 8)
	} else {
		block[bit/8] &^= 1 << (bit % 8)
	}
	return p.blocks.Put(key, block)
}

// search gives the first address of the spans that is free and may be given
// out; the zero Addr if there is none.
func (p *pool) search(in ipam.Pool, spans []ipam.Span) netip.Addr {
	for _, s := range spans {
		for off := s.First; off <= s.Last; {
			a := in.At(off)
			key, bit := blockOf(a)
			free, ok := firstFree(p.blocks.Get(key), bit)
			skip := uint64(free - bit)
			if skip > s.Last-off {
				break
			}
			off += skip
			if ok && in.Check(in.At(off)) == nil {
				return in.At(off)
			}
			if ok {
				if off == s.Last {
					break
				}
				off++
			}
		}
	}
	return netip.Addr{}
}

// firstFree gives the first bit from bit on that is not set; if there is none,
// the first of the next block, and false. A block that does not exist is free.
func firstFree(block []byte, bit int) (int, bool) {
	if block == nil {
		return bit, true
	}
	for i := bit / 8; i < len(block); i++ {
		b := block[i]
		if i == bit/8 {
			b |= 1<<(bit%8) - 1
		}
		if b != 0xff {
			return i*8 + bits.TrailingZeros8(^b), true
		}
	}
	return 1 << blockBits, false
}
