// Claim does what a start does for its address, and nothing else: it opens a database of leases,
// claims the next address of a pool, and closes it. With -fill it claims many, one per transaction,
// as starts do.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// subnet has space for a million leases.
var subnet = netip.MustParsePrefix("10.16.0.0/12")

func main() {
	fill := flag.Int("fill", 1, "number of addresses to claim")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: claim [-fill N] DATABASE ID")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *fill); err != nil {
		fmt.Fprintln(os.Stderr, "claim:", err)
		os.Exit(1)
	}
}

func run(path, id string, n int) error {
	db, ctx := boltstore.Open(path), context.Background()
	return db.Hold(ctx, func() error {
		for i := range n {
			// Spread out, as if the ids were random.
			name := fmt.Sprintf("%s-%016x", id, uint64(i)*0x9e3779b97f4a7c15)
			l := ipam.Lease{Owner: ipam.Owner{Attachment: name, Network: "web", Interface: "eth0"}, Name: name,
				MAC: "02:42:0a:20:00:01"}
			if _, err := db.Next(ctx, "web", ipam.Pool{Subnet: subnet}, l); err != nil {
				return err
			}
		}
		return nil
	})
}
