package boltstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/lanyard-net/lanyard/ipam"
)

// Audit reads a whole file, as a visit does that finds no seal.
func Audit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return AuditOf(f, fi.Size())
}

// AuditOf is Audit for contents that are not in a file.
func AuditOf(f io.ReaderAt, size int64) error {
	_, err := check(f, size)
	return err
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

// Forge changes a row of a pool, and the sum with it, as a bug of this package would. Without a
// value it deletes the row.
func Forge(ctx context.Context, db *DB, pool, bucket string, key, value []byte) error {
	return db.Update(ctx, func(t *Tx) error {
		b := t.root().table(poolPrefix + pool).table(bucket)
		if value == nil {
			return b.delete(key)
		}
		return b.put(key, value)
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
