package admin

import (
	"context"
	"math/big"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/ipam"
)

// Usage is the use of one subnet of a network.
type Usage struct {
	Subnet netip.Prefix
	Counts ipam.Counts
	Leases []ipam.Lease // in the order of addresses; nil in a summary
	// Size is the number of addresses in the ranges, which are assigned to containers that
	// request no address, and Free is the number of those that are unused. In a summary, Free
	// counts every lease as one in the ranges, although requested addresses may be outside.
	Size, Free *big.Int
}

// Usage returns the use of each subnet of a network, with its leases. Callers do not need the names
// of the pools.
func (l *Admin) Usage(ctx context.Context, def *network.Definition) (all []Usage, err error) {
	if all, err = l.Summary(ctx, def); err != nil {
		return nil, err
	}
	for i, s := range def.Subnets {
		u := &all[i]
		if err := l.WithStore(ctx, def.Leases, func(in ipam.Store) (err error) {
			u.Leases, err = in.Leases(ctx, parts.PoolName(def, s))
			return err
		}); err != nil {
			return nil, err
		}
		p, used := parts.PoolOf(def, s), 0
		for _, lease := range u.Leases {
			if p.InRanges(lease.Addr) {
				used++
			}
		}
		u.Free = freeCount(u.Size, used)
	}
	return all, nil
}

// Summary is Usage without the leases. Its cost does not depend on their number.
func (l *Admin) Summary(ctx context.Context, def *network.Definition) (all []Usage, err error) {
	for _, s := range def.Subnets {
		u := Usage{Subnet: s.Subnet, Size: parts.PoolOf(def, s).Size()}
		if err := l.WithStore(ctx, def.Leases, func(in ipam.Store) (err error) {
			u.Counts, err = in.Count(ctx, parts.PoolName(def, s))
			return err
		}); err != nil {
			return nil, err
		}
		u.Free = freeCount(u.Size, u.Counts.Held+u.Counts.Quarantined+u.Counts.Declined)
		all = append(all, u)
	}
	return all, nil
}

// SubnetsWithoutRange returns the subnets of a network with no address for a container that
// requests none.
func SubnetsWithoutRange(def *network.Definition) (all []netip.Prefix) {
	for _, s := range def.Subnets {
		if parts.PoolOf(def, s).Size().Sign() == 0 {
			all = append(all, s.Subnet)
		}
	}
	return all
}

// freeCount returns size - used, and at least 0.
func freeCount(size *big.Int, used int) *big.Int {
	free := new(big.Int).Sub(size, big.NewInt(int64(used)))
	if free.Sign() < 0 {
		return new(big.Int)
	}
	return free
}
