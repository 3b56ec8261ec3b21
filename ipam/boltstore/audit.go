package boltstore

import (
	"hash/fnv"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/lanyard-net/lanyard/ipam"
)

// audit reads all rows of a file in order and sees whether they agree. Of each
// pool it keeps the bits and no rows: a pool of a million leases is checked in
// little memory.
type audit struct {
	layout bool
	pool   poolAudit
}

// poolAudit relies on the order of a pool's buckets: blocks, ends, leases,
// owners, state.
type poolAudit struct {
	buckets      int
	blocks       map[string][]byte // bits that no lease was found for yet
	owners, ends int64             // sums over keys: those there are, less those that should be
	found, said  ipam.Counts
}

func (a *audit) row(path []string, key, value []byte) error {
	switch {
	case len(path) == 0 && key == nil: // the end of the file
		return nil
	case len(path) == 1 && path[0] == string(bucketMeta):
		return a.meta(key, value)
	case len(path) == 1 && strings.HasPrefix(path[0], rowsPrefix):
		if key == nil {
			return nil
		}
		_, err := opened(strings.TrimPrefix(path[0], rowsPrefix), key, value)
		return err
	case len(path) == 1 && path[0] == string(bucketPools) && key == nil:
		return nil
	case len(path) == 2 && path[0] == string(bucketPools) && key == nil:
		return a.endPool(path[1])
	case len(path) == 3 && path[0] == string(bucketPools):
		if err := a.pool.row(path[1], path[2], key, value); err != nil {
			return damaged("pool %q: %w", path[1], err)
		}
		return nil
	}
	return damaged("bucket %q, key %q: not ours", path, key)
}

func (a *audit) meta(key, value []byte) error {
	if key == nil {
		return nil
	}
	if string(key) != string(keyLayout) {
		return damaged("key %q: not ours", key)
	}
	a.layout = true
	return sameLayout(value)
}

// end is for what only the end of the file tells.
func (a *audit) end() error {
	if !a.layout {
		return damaged("its layout is not there")
	}
	return nil
}

func (p *poolAudit) row(pool, bucket string, key, value []byte) error {
	if key == nil {
		p.buckets++
		return nil
	}
	switch bucket {
	case string(inBlocks):
		if len(value) != blockBytes {
			return damaged("block %x has %d bytes", key, len(value))
		}
		if p.blocks == nil {
			p.blocks = map[string][]byte{}
		}
		p.blocks[string(key)] = append([]byte(nil), value...)
	case string(inEnds):
		p.ends += sum(key)
	case string(inLeases):
		return p.lease(pool, key, value)
	case string(inOwners):
		p.owners += sum(key)
	case string(inState):
		return p.state(key, value)
	default:
		return damaged("bucket %q: not ours", bucket)
	}
	return nil
}

func (p *poolAudit) lease(pool string, key, value []byte) error {
	l, err := decode(pool, key, value)
	if err != nil {
		return err
	}
	block, bit := blockOf(l.Addr)
	b := p.blocks[string(block)]
	if b == nil || b[bit/8]&(1<<(bit%8)) == 0 {
		return damaged("lease of %s has no bit", l.Addr)
	}
	b[bit/8] &^= 1 << (bit % 8)
	p.found.Add(l.State, 1)
	if l.State == ipam.Held {
		p.owners -= sum(ownerKey(l.Owner, key))
	} else {
		p.ends -= sum(endKey(l.Until, key))
	}
	return nil
}

func (p *poolAudit) state(key, value []byte) (err error) {
	switch string(key) {
	case string(keyCounts):
		p.said, err = decodeCounts(value)
	case string(keyCursor):
		if _, ok := netip.AddrFromSlice(value); !ok {
			return damaged("cursor %x", value)
		}
	default:
		return damaged("key %q: not ours", key)
	}
	return err
}

func (a *audit) endPool(name string) error {
	p := a.pool
	a.pool = poolAudit{}
	for block, b := range p.blocks {
		for i, left := range b {
			if left != 0 {
				return damaged("pool %q: block %x has bit %d and no lease", name, block, i*8+bits.TrailingZeros8(left))
			}
		}
	}
	switch {
	case p.buckets != len(poolBuckets):
		return damaged("pool %q has %d buckets", name, p.buckets)
	case p.owners != 0:
		return damaged("pool %q: leases and owners differ", name)
	case p.ends != 0:
		return damaged("pool %q: leases and ends of quarantines differ", name)
	case p.found != p.said:
		return damaged("pool %q has %+v leases and says %+v", name, p.found, p.said)
	}
	return nil
}

// sum is a key's share in a sum that is the same for the same keys in any order.
func sum(key []byte) int64 {
	h := fnv.New64a()
	h.Write(key)
	return int64(h.Sum64())
}
