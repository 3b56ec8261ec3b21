package boltstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/lanyard-net/lanyard/ipam"
)

// Check returns an error if bbolt finds a fault in a file's pages, or if the buckets of a pool do not
// agree.
func Check(path string) error {
	b, err := bbolt.Open(path, 0o600, options())
	if err != nil {
		return err
	}
	defer b.Close()
	return b.View(func(tx *bbolt.Tx) (err error) {
		for fault := range tx.Check() {
			err = errors.Join(err, fault)
		}
		return errors.Join(err, tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			pool, ok := strings.CutPrefix(string(name), poolPrefix)
			if !ok {
				return nil
			}
			return agree(&Tx{tx: tx}, pool)
		}))
	})
}

func agree(t *Tx, name string) error {
	p, err := openPool(t, name)
	if err != nil {
		return err
	}
	var found ipam.Counts
	for k, v := range withPrefix(p.leases, nil) {
		l, err := decode(k, v)
		if err != nil {
			return err
		}
		found.Add(l.State, 1)
		row := p.ends.Get(endKey(l.Until, k))
		if l.State == ipam.Held {
			row = p.owners.Get(ownerKey(l.Owner, k))
		}
		block, bit := blockOf(l.Addr)
		if bits := p.blocks.Get(block); row == nil || bits == nil || bits[bit/8]&(1<<(bit%8)) == 0 {
			return fmt.Errorf("%s is not in all buckets", l.Addr)
		}
	}
	marked := 0
	for _, block := range withPrefix(p.blocks, nil) {
		for _, b := range block {
			marked += bits.OnesCount8(b)
		}
	}
	ended := found.Quarantined + found.Declined
	if found != p.counts || marked != found.Held+ended || p.owners.Stats().KeyN != found.Held ||
		p.ends.Stats().KeyN != ended {
		return fmt.Errorf("pool %q has leases %+v, counts %+v, and %d bits", name, found, p.counts, marked)
	}
	return nil
}

// OwnerKey returns the key of an owner's address.
var OwnerKey = ownerKey

// Encode and Decode convert a lease's row.
var (
	Encode = encode
	Decode = decode
)

// StartID returns an attachment id as the hook makes them, for the nth of starts at ten per second:
// the time, then random bytes.
func StartID(n int) string {
	r := sha256.Sum256(fmt.Append(nil, n))
	return fmt.Sprintf("%08x%x", 1_700_000_000+n/10, r[:12])
}

// PageSize is the file's page size in bytes.
const PageSize = pageSize

// Options returns the options that the file is opened with.
var Options = options

// Fill leases n addresses, one per transaction, as starts do.
func Fill(ctx context.Context, db *DB, name string, in ipam.Pool, n int) error {
	return db.Hold(ctx, func() error {
		for i := range n {
			id := fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)
			l := ipam.Lease{Owner: ipam.Owner{Attachment: id, Network: "web50", Interface: "eth0"}, Name: id,
				MAC: "02:42:0a:20:00:01"}
			if _, err := db.Next(ctx, name, in, l); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forge changes a row of a pool, as a bug of this package would. Without a value it deletes the
// row.
func Forge(ctx context.Context, db *DB, pool, bucket string, key, value []byte) error {
	return db.Update(ctx, func(t *Tx) error {
		b := t.tx.Bucket([]byte(poolPrefix + pool)).Bucket([]byte(bucket))
		if value == nil {
			return b.Delete(key)
		}
		return b.Put(key, value)
	})
}

// FillFast leases n addresses, the first of every step ones, several hundred per transaction: a
// million takes half a minute. The pages are as full, and as few of them are free, as with one
// lease per transaction.
func FillFast(ctx context.Context, db *DB, name string, in ipam.Pool, n, step int) error {
	const perTransaction = 500
	a := ipam.FirstUsable(in.Subnet)
	fill := func(p *pool, done int) error {
		for i := done; i < min(n, done+perTransaction); i++ {
			owner := ipam.Owner{Attachment: StartID(i), Network: "web50", Interface: "eth0"}
			if err := p.put(ipam.Lease{Addr: a, Owner: owner, Name: owner.Attachment, MAC: "02:42:0a:20:00:01",
				State: ipam.Held}); err != nil {
				return err
			}
			for range step {
				a = a.Next()
			}
		}
		return nil
	}
	return db.Hold(ctx, func() error {
		for done := 0; done < n; done += perTransaction {
			if err := db.change(ctx, name, func(p *pool) error { return fill(p, done) }); err != nil {
				return err
			}
		}
		return nil
	})
}
