//go:build !vm

package etcdstore_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
)

// BenchmarkLease measures one claim of the next address and its release, in etcd (one server on this
// machine) and in a host's own database, in a pool with 1,000 addresses held. The ratio of the two is
// what compares, not the times.
func BenchmarkLease(b *testing.B) {
	subnet := ipam.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/16")}
	fill := func(b *testing.B, s ipam.Store) {
		for i := range 1000 {
			if _, err := s.Next(b.Context(), pool, subnet, owned(fmt.Sprint("held", i))); err != nil {
				b.Fatal(err)
			}
		}
	}
	measure := func(b *testing.B, s ipam.Store) {
		fill(b, s)
		for i := 0; b.Loop(); i++ {
			l := owned(fmt.Sprint(i))
			if _, err := s.Next(b.Context(), pool, subnet, l); err != nil {
				b.Fatal(err)
			}
			if err := s.Release(b.Context(), pool, l.Owner, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("own", func(b *testing.B) { measure(b, boltstore.Open(filepath.Join(b.TempDir(), "lanyard.db"))) })
	b.Run("etcd", func(b *testing.B) {
		e := testenv.StartEtcd(b)
		s := mustOpen(b, etcdstore.Config{Endpoints: []string{e.Endpoint}, TTL: "1m"}, "a")
		keep(b, s, nothing)
		measure(b, s)
	})
}

// owned is a lease of an attachment, with no address.
func owned(attachment string) ipam.Lease {
	return ipam.Lease{Owner: ipam.Owner{Attachment: attachment, Network: "web", Interface: "eth0"}, Name: "c" + attachment}
}

// BenchmarkRead measures what "network inspect" does in a pool with 1,000 addresses held: with all
// leases, and with --summary.
func BenchmarkRead(b *testing.B) {
	e := testenv.StartEtcd(b)
	s := mustOpen(b, etcdstore.Config{Endpoints: []string{e.Endpoint}, TTL: "1m"}, "a")
	keep(b, s, nothing)
	subnet := ipam.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/16")}
	for i := range 1000 {
		if _, err := s.Next(b.Context(), pool, subnet, owned(fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("leases", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Leases(b.Context(), pool); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Count(b.Context(), pool); err != nil {
				b.Fatal(err)
			}
		}
	})
}
