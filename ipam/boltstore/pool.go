package boltstore

import (
	"math/bits"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

// A pool is a bucket of buckets:
//
//	leases  address → Lease, see encode
//	owners  the owner's beginning and hash, address → nothing, of those held
//	ends    when it ends, address → nothing, of the others
//	blocks  address without its last 11 bits → 2048 bits: taken or not
//	state   cursor: the address that was given last; counts
//
// The bits make the next free address cost the same in a full pool as in an
// empty one: a block of 2048 addresses is one read. A lease is in three places,
// and none is believed alone: what is free in one and taken in another is
// damage, and nobody gets it.
var (
	keyCursor = []byte("cursor")
	keyCounts = []byte("counts")
)

// poolPrefix keeps pools apart from the buckets of others.
const poolPrefix = "pool/"

const (
	blockBits  = 11 // a block's bits are 256 bytes: a page has room for three
	blockBytes = 1 << blockBits / 8
	blockHigh  = 1<<(blockBits-8) - 1 // its share of an address's last byte but one
)

// inOrder is how full bbolt leaves a page of keys that come in order, as those of
// owners do, and those of leases until a pool has been gone through: half full, a
// million would need twice the pages, and a level more.
const inOrder = 0.9

// expireAtOnce bounds what one visit pays for others' quarantines that have run
// out: after it, only who would find the pool full goes on.
const expireAtOnce = 64

// pool is one pool within a transaction.
type pool struct {
	now                                 time.Time
	leases, owners, blocks, ends, state table
	counts, said                        ipam.Counts // as they are, and as they are in the file
}

// openPool finds the pool, nil if there is none.
func openPool(t *Tx, name string) (*pool, error) {
	b := t.root().table(poolPrefix + name)
	if b.b == nil {
		return nil, nil
	}
	p := &pool{now: t.now, leases: b.table("leases"), owners: b.table("owners"), blocks: b.table("blocks"), ends: b.table("ends"), state: b.table("state")}
	if p.leases.b == nil || p.owners.b == nil || p.blocks.b == nil || p.ends.b == nil || p.state.b == nil {
		return nil, damaged("pool %q lacks a bucket", name)
	}
	p.owners.b.FillPercent, p.leases.b.FillPercent = inOrder, inOrder
	if v := p.state.get(keyCounts); v != nil {
		var err error
		if p.said, err = decodeCounts(v); err != nil {
			return nil, err
		}
	}
	p.counts = p.said
	return p, nil
}

// makePool finds or makes the pool.
func makePool(t *Tx, name string) (*pool, error) {
	if p, err := openPool(t, name); p != nil || err != nil {
		return p, err
	}
	b, err := t.root().make(poolPrefix + name)
	if err != nil {
		return nil, err
	}
	for _, in := range []string{"leases", "owners", "blocks", "ends", "state"} {
		if _, err := b.make(in); err != nil {
			return nil, err
		}
	}
	return openPool(t, name)
}

// close writes what is written once in a transaction.
func (p *pool) close() error {
	if p.counts == p.said {
		return nil
	}
	return p.state.put(keyCounts, encodeCounts(p.counts))
}

// expire frees up to n of what has run out, and says how many it found. It
// reads one key where there is none.
func (p *pool) expire(n int) (found int, err error) {
	for ; found < n; found++ {
		k, _ := p.ends.b.Cursor().First()
		if k == nil || endOf(k).After(p.now) {
			return found, nil
		}
		l, err := p.ended(k)
		if err != nil {
			return found, err
		}
		if err := p.remove(*l); err != nil {
			return found, err
		}
	}
	return found, nil
}

// ended gives the lease of a key of ends.
func (p *pool) ended(k []byte) (*ipam.Lease, error) {
	a, ok := netip.AddrFromSlice(k[8:])
	if !ok {
		return nil, damaged("end of a quarantine %x", k)
	}
	l, err := p.lease(a)
	if err == nil && l == nil {
		err = damaged("quarantine of %s without a lease", a)
	}
	return l, err
}

// lease gives the row of an address, nil if there is none.
func (p *pool) lease(a netip.Addr) (*ipam.Lease, error) {
	key := a.AsSlice()
	v := p.leases.get(key)
	if v == nil {
		return nil, nil
	}
	l, err := decode(key, v)
	return &l, err
}

// put writes a lease and all that finds it. The address must be free in every
// place.
func (p *pool) put(l ipam.Lease) error {
	key := l.Addr.AsSlice()
	if p.leases.get(key) != nil {
		return damaged("%s has a lease and no bit", l.Addr)
	}
	if err := p.mark(l.Addr, true); err != nil {
		return err
	}
	if err := p.leases.swap(key, nil, encode(l)); err != nil {
		return err
	}
	p.counts.Add(l.State, 1)
	if l.State == ipam.Held {
		return p.owners.put(ownerKey(l.Owner, key), []byte{})
	}
	return p.ends.put(endKey(l.Until, key), []byte{})
}

// remove is the opposite of put.
func (p *pool) remove(l ipam.Lease) error {
	key := l.Addr.AsSlice()
	if err := p.mark(l.Addr, false); err != nil {
		return err
	}
	err := p.leases.delete(key)
	if err != nil {
		return err
	}
	if l.State == ipam.Held {
		err = p.owners.delete(ownerKey(l.Owner, key))
	} else {
		err = p.ends.delete(endKey(l.Until, key))
	}
	p.counts.Add(l.State, -1)
	return err
}

// held gives the leases that an owner holds.
func (p *pool) held(o ipam.Owner) (leases []ipam.Lease, err error) {
	prefix := ownerKey(o, nil)
	for k := range p.owners.prefix(prefix) {
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

// mark sets an address's bit, or clears it.
func (p *pool) mark(a netip.Addr, taken bool) error {
	key, bit := blockOf(a)
	old := p.blocks.get(key)
	block := make([]byte, blockBytes)
	copy(block, old)
	if taken == (block[bit/8]&(1<<(bit%8)) != 0) {
		return damaged("%s is marked taken and has no lease, or the other way round", a)
	}
	block[bit/8] ^= 1 << (bit % 8)
	return p.blocks.swap(key, old, block)
}

// search gives the first address of the spans that is free and may be given
// out; the zero Addr if there is none.
func (p *pool) search(in ipam.Pool, spans []ipam.Span) netip.Addr {
	for _, s := range spans {
		for a := s.First; a.IsValid() && !s.Last.Less(a); a = a.Next() {
			key, bit := blockOf(a)
			bit, free := firstFree(p.blocks.get(key), bit)
			if a = inBlock(a, bit); free && !s.Last.Less(a) && in.Check(a) == nil {
				return a
			}
		}
	}
	return netip.Addr{}
}

// blockOf gives the key of an address's block, and its bit there. The key is
// the address without its last bits, so that no subnet has to be known.
func blockOf(a netip.Addr) (key []byte, bit int) {
	b := a.AsSlice()
	n := len(b)
	bit = int(b[n-2]&blockHigh)<<8 | int(b[n-1])
	b[n-2] &^= blockHigh
	return b[:n-1], bit
}

// inBlock gives the address of another bit of a's block.
func inBlock(a netip.Addr, bit int) netip.Addr {
	b := a.AsSlice()
	n := len(b)
	b[n-2] = b[n-2]&^blockHigh | byte(bit>>8)
	b[n-1] = byte(bit)
	a, _ = netip.AddrFromSlice(b)
	return a
}

// firstFree gives the first bit from bit on that is not set; if there is none,
// the last, and false. A block that does not exist is free.
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
