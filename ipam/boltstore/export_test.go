package boltstore

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/lanyard-net/lanyard/ipam"
)

// Audit reads a whole file as a visit does that finds no seal.
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

// AuditOf is Audit of a file that need not be one.
func AuditOf(f io.ReaderAt, size int64) error {
	_, err := check(f, size)
	return err
}

// Options are what the file is opened with.
var Options = options

// Fill gives out n addresses, one in a transaction, as starts do.
func Fill(ctx context.Context, db *DB, name string, in ipam.Pool, n int) error {
	return db.Hold(ctx, func() error {
		for i := range n {
			id := fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)
			l := ipam.Lease{Owner: ipam.Owner{Attachment: id, Network: "web50", Interface: "eth0"}, Name: id, MAC: "02:42:0a:20:00:01"}
			if _, err := db.Next(ctx, name, in, l); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forge changes a row of a pool, and the sum with it, as a bug of ours would:
// without a value it is deleted.
func Forge(ctx context.Context, db *DB, pool, bucket string, key, value []byte) error {
	return db.Update(ctx, func(t *Tx) error {
		b := t.root().table(poolPrefix + pool).table(bucket)
		if value == nil {
			return b.delete(key)
		}
		return b.put(key, value)
	})
}

// FillFast gives out n addresses, the first of each step ones, many in a
// transaction: a million takes seconds. What such transactions leave free, and
// starts would not, is taken out of the file.
func FillFast(ctx context.Context, db *DB, name string, in ipam.Pool, n, step int) error {
	const together = 50_000
	a := ipam.FirstUsable(in.Subnet)
	for done := 0; done < n; {
		if err := db.change(ctx, name, func(p *pool) error {
			for until := min(n, done+together); done < until; done++ {
				id := fmt.Sprintf("%016x", uint64(done)*0x9e3779b97f4a7c15)
				owner := ipam.Owner{Attachment: id, Network: "web50", Interface: "eth0"}
				if err := p.put(ipam.Lease{Addr: a, Owner: owner, Name: id, MAC: "02:42:0a:20:00:01", State: ipam.Held}); err != nil {
					return err
				}
				for range step {
					a = a.Next()
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return db.visit(ctx, db.compact)
}
