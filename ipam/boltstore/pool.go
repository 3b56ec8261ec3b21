package boltstore

import (
	"math/bits"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"github.com/lanyard-net/lanyard/ipam"
)

// A pool is a bucket of buckets:
//
//	leases  address → Lease, see encode
//	owners  ownerKey: start of the attachment id, hash, address → nothing; only of held leases
//	ends    endKey: time at which the lease ends, address → nothing; only of the other leases
//	blocks  address without its last 11 bits → 2048 bits: taken or not
//	state   cursor: the address that Next leased last; counts
//
// With the bits, finding the next free address costs the same in a full pool as in an empty one: a
// block of 2048 addresses is one read. A lease is in three places, which must agree: an address
// that is free in one and taken in another is damage, and is not leased.
var (
	keyCursor = []byte("cursor")
	keyCounts = []byte("counts")
)

// poolPrefix separates the pools from other buckets.
const poolPrefix = "pool/"

const (
	blockBits  = 11 // a block's bits are 256 bytes: three blocks fit in a page
	blockBytes = 1 << blockBits / 8
	blockHigh  = 1<<(blockBits-8) - 1 // the block's bits in the last byte but one of an address
)

// inOrder is the fill percentage of pages with keys that are inserted in order, as those of owners
// are, and those of leases until Next has been through the pool once. With bbolt's default of half
// full, a million leases would need twice the pages, and one level more.
const inOrder = 0.9

// expireAtOnce limits how many leases that have run out one visit frees. Only a Next that finds the
// pool full frees more.
const expireAtOnce = 64

// pool is one pool within a transaction.
type pool struct {
	now                                 time.Time
	wall                                time.Duration // from now to the time of the wall clock
	leases, owners, blocks, ends, state *bbolt.Bucket
	counts, stored                      ipam.Counts // as they are now, and as they are in the file
}

// openPool returns the pool, or nil if it does not exist.
func openPool(t *Tx, name string) (*pool, error) {
	b := t.tx.Bucket([]byte(poolPrefix + name))
	if b == nil {
		return nil, nil
	}
	in := func(bucket string) *bbolt.Bucket { return b.Bucket([]byte(bucket)) }
	p := &pool{now: t.now, wall: t.wall, leases: in("leases"), owners: in("owners"), blocks: in("blocks"),
		ends: in("ends"), state: in("state")}
	if p.leases == nil || p.owners == nil || p.blocks == nil || p.ends == nil || p.state == nil {
		return nil, damaged("pool %q lacks a bucket", name)
	}
	p.owners.FillPercent, p.leases.FillPercent = inOrder, inOrder
	if v := p.state.Get(keyCounts); v != nil {
		var err error
		if p.stored, err = decodeCounts(v); err != nil {
			return nil, err
		}
	}
	p.counts = p.stored
	return p, nil
}

// makePool returns the pool, and creates it if it does not exist.
func makePool(t *Tx, name string) (*pool, error) {
	if p, err := openPool(t, name); p != nil || err != nil {
		return p, err
	}
	b, err := t.tx.CreateBucket([]byte(poolPrefix + name))
	if err != nil {
		return nil, err
	}
	for _, bucket := range []string{"leases", "owners", "blocks", "ends", "state"} {
		if _, err := b.CreateBucket([]byte(bucket)); err != nil {
			return nil, err
		}
	}
	return openPool(t, name)
}

// close writes the counts, once in a transaction.
func (p *pool) close() error {
	if p.counts == p.stored {
		return nil
	}
	return p.state.Put(keyCounts, encodeCounts(p.counts))
}

// expire frees up to n leases that have run out, and returns how many it freed. If there are none,
// it reads one key.
func (p *pool) expire(n int) (found int, err error) {
	for ; found < n; found++ {
		k, _ := p.ends.Cursor().First()
		if k == nil {
			return found, nil
		}
		l, err := p.ended(k)
		if l == nil || err != nil {
			return found, err
		}
		if err := p.remove(*l); err != nil {
			return found, err
		}
	}
	return found, nil
}

// ended returns the lease of a key in ends, or nil if it has not run out.
func (p *pool) ended(k []byte) (*ipam.Lease, error) {
	until, a, err := endOf(k)
	if err != nil || until.After(p.now) {
		return nil, err
	}
	return p.ending(a)
}

// ending returns the lease of an address that is in ends.
func (p *pool) ending(a netip.Addr) (*ipam.Lease, error) {
	l, err := p.lease(a)
	if err == nil && l == nil {
		err = damaged("quarantine of %s without a lease", a)
	}
	return l, err
}

// lease returns the row of an address, or nil.
func (p *pool) lease(a netip.Addr) (*ipam.Lease, error) {
	key := a.AsSlice()
	v := p.leases.Get(key)
	if v == nil {
		return nil, nil
	}
	l, err := decode(key, v)
	return &l, err
}

// byWall returns a lease with the end that the wall clock will show.
func (p *pool) byWall(l ipam.Lease) ipam.Lease {
	if !l.Until.IsZero() {
		l.Until = l.Until.Add(p.wall)
	}
	return l
}

// put writes a lease and its entries in the other buckets. The address must be free in all of them.
func (p *pool) put(l ipam.Lease) error {
	key := l.Addr.AsSlice()
	if p.leases.Get(key) != nil {
		return damaged("%s has a lease and no bit", l.Addr)
	}
	if err := p.mark(l.Addr, true); err != nil {
		return err
	}
	if err := p.leases.Put(key, encode(l)); err != nil {
		return err
	}
	p.counts.Add(l.State, 1)
	if l.State == ipam.Held {
		return p.owners.Put(ownerKey(l.Owner, key), []byte{})
	}
	return p.ends.Put(endKey(l.Until, key), []byte{})
}

// remove removes what put wrote.
func (p *pool) remove(l ipam.Lease) error {
	key := l.Addr.AsSlice()
	if err := p.mark(l.Addr, false); err != nil {
		return err
	}
	err := p.leases.Delete(key)
	if err != nil {
		return err
	}
	if l.State == ipam.Held {
		err = p.owners.Delete(ownerKey(l.Owner, key))
	} else {
		err = p.ends.Delete(endKey(l.Until, key))
	}
	p.counts.Add(l.State, -1)
	return err
}

// held returns the leases that an owner holds.
func (p *pool) held(o ipam.Owner) (leases []ipam.Lease, err error) {
	prefix := ownerKey(o, nil)
	for k := range withPrefix(p.owners, prefix) {
		a, ok := netip.AddrFromSlice(k[len(prefix):])
		if !ok {
			return nil, damaged("owner %x", k)
		}
		l, err := p.lease(a)
		if err == nil && l == nil {
			err = damaged("%s has an owner and no lease", a)
		}
		if err != nil {
			return nil, err
		}
		if l.Owner == o {
			leases = append(leases, *l)
		}
	}
	return leases, nil
}

// mark sets or clears the bit of an address.
func (p *pool) mark(a netip.Addr, taken bool) error {
	key, bit := blockOf(a)
	block := make([]byte, blockBytes)
	copy(block, p.blocks.Get(key))
	if taken == (block[bit/8]&(1<<(bit%8)) != 0) {
		return damaged("%s is marked taken and has no lease, or the other way round", a)
	}
	block[bit/8] ^= 1 << (bit % 8)
	return p.blocks.Put(key, block)
}

// search returns the first address of the spans that is free and that in.Check accepts, or the zero
// Addr.
func (p *pool) search(in ipam.Pool, spans []ipam.Span) netip.Addr {
	for _, s := range spans {
		for a := s.First; a.IsValid() && !s.Last.Less(a); a = a.Next() {
			key, bit := blockOf(a)
			bit, free := firstFree(p.blocks.Get(key), bit)
			if a = inBlock(a, bit); free && !s.Last.Less(a) && in.Check(a) == nil {
				return a
			}
		}
	}
	return netip.Addr{}
}

// blockOf returns the key of an address's block, and the number of its bit there. The key is the
// address without its last bits, so that it does not depend on the subnet.
func blockOf(a netip.Addr) (key []byte, bit int) {
	b := a.AsSlice()
	n := len(b)
	bit = int(b[n-2]&blockHigh)<<8 | int(b[n-1])
	b[n-2] &^= blockHigh
	return b[:n-1], bit
}

// inBlock returns the address in a's block that has the given bit.
func inBlock(a netip.Addr, bit int) netip.Addr {
	b := a.AsSlice()
	n := len(b)
	b[n-2] = b[n-2]&^blockHigh | byte(bit>>8)
	b[n-1] = byte(bit)
	a, _ = netip.AddrFromSlice(b)
	return a
}

// firstFree returns the first bit from bit on that is not set. If all are set, it returns the last
// bit and false. A nil block is free.
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
	return 1<<blockBits - 1, false
}
