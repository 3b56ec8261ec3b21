package wiring

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

const pool = "web/192.168.50.0/24"

// mustOpen opens the parts below a directory, as one process does.
func mustOpen(t *testing.T, root string) *Lanyard {
	t.Helper()
	l, err := Open(PathsUnder(root))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// bounded returns a context that ends a wait for the lock of the own process.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// seen returns the numbers of records and leases during one Hold.
func seen(ctx context.Context, l *Lanyard) (records, leases int, err error) {
	err = l.DB.Hold(ctx, func() error {
		if err := l.DB.View(ctx, func(tx record.Tx) error {
			all, err := record.All(tx)
			records = len(all)
			return err
		}); err != nil {
			return err
		}
		all, err := l.Leases.Own.Leases(ctx, pool)
		leases = len(all)
		return err
	})
	return records, leases, err
}

// TestRecordsAndLeasesAreOneFile checks the contract of record.DB and ipam.Store: a Hold covers the
// leases too. Its function can claim one, and another process that comes between the record and the
// lease waits, and then sees both.
func TestRecordsAndLeasesAreOneFile(t *testing.T) {
	root := t.TempDir()
	l, other := mustOpen(t, root), mustOpen(t, root)
	ctx := bounded(t)
	a := hook.Attachment{ID: record.NewID(), Network: "web"}
	lease := ipam.Lease{Addr: netip.MustParseAddr("192.168.50.2"),
		Owner: ipam.Owner{Attachment: a.ID.String(), Network: "web", Interface: "eth0"}}
	type result struct {
		records, leases int
		err             error
	}
	waiter := make(chan result, 1)
	if err := l.DB.Hold(ctx, func() error {
		if err := l.DB.Update(ctx, func(tx record.Tx) error { return record.Put(tx, &a) }); err != nil {
			return err
		}
		go func() {
			var r result
			r.records, r.leases, r.err = seen(ctx, other)
			waiter <- r
		}()
		for what, visit := range map[string]func(context.Context) error{
			"records": func(ctx context.Context) error {
				return other.DB.View(ctx, func(record.Tx) error { return nil })
			},
			"leases": func(ctx context.Context) error {
				_, err := other.Leases.Own.Leases(ctx, pool)
				return err
			},
		} {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			if err := visit(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("another process visits the %s during the hold: %v", what, err)
			}
			cancel()
		}
		return l.Leases.Own.Claim(ctx, pool, lease)
	}); err != nil {
		t.Fatal(err)
	}
	if got := <-waiter; got != (result{records: 1, leases: 1}) {
		t.Errorf("the process that waited sees %d records and %d leases, %v", got.records, got.leases, got.err)
	}
}

// TestMoveAsideForEither checks that DB.MoveAside renames a file whose damage the store has found,
// and that both then use the new one.
func TestMoveAsideForEither(t *testing.T) {
	root := t.TempDir()
	l, ctx := mustOpen(t, root), bounded(t)
	if _, _, err := seen(ctx, l); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(PathsUnder(root).Run, "lanyard.db")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Leases.Own.Leases(ctx, pool); !errors.Is(err, ipam.ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
	if name, err := l.DB.MoveAside(ctx); !strings.HasPrefix(name, path+".") || err != nil {
		t.Fatalf("moved to %q, %v", name, err)
	}
	if records, leases, err := seen(ctx, l); records != 0 || leases != 0 || err != nil {
		t.Errorf("%d records and %d leases, %v", records, leases, err)
	}
}
