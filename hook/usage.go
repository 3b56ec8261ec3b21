package hook

import (
	"context"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Usage is how much of one subnet of a network is in use.
type Usage struct {
	Subnet netip.Prefix
	Counts ipam.Counts
	Leases []ipam.Lease // in the order of addresses
}

// Usage gives the leases of every subnet of a network. It knows what their
// pools are called, and nobody else has to.
func (l *Local) Usage(ctx context.Context, def *network.Definition) (all []Usage, err error) {
	for _, s := range def.Subnets {
		u := Usage{Subnet: s.Subnet}
		if u.Counts, err = l.Leases.Count(ctx, poolName(def, s)); err != nil {
			return nil, err
		}
		if u.Leases, err = l.Leases.Leases(ctx, poolName(def, s)); err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}
