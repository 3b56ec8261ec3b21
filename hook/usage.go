package hook

import (
	"context"
	"math/big"
	"net/netip"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Usage is how much of one subnet of a network is in use.
type Usage struct {
	Subnet netip.Prefix
	Counts ipam.Counts
	Leases []ipam.Lease // in the order of addresses; none in a summary
	// Size is how many addresses are given out to who asks for none by name,
	// and Free how many of them are left. In a summary Free takes every lease
	// for one of them; addresses asked for by name may be outside.
	Size, Free *big.Int
}

// Usage gives the leases of every subnet of a network. It knows what their
// pools are called, and nobody else has to.
func (l *Local) Usage(ctx context.Context, def *network.Definition) (all []Usage, err error) {
	for _, s := range def.Subnets {
		u, err := l.summary(ctx, def, s)
		if err != nil {
			return nil, err
		}
		if u.Leases, err = l.Leases.Leases(ctx, poolName(def, s)); err != nil {
			return nil, err
		}
		p, taken := poolOf(def, s), 0
		for _, lease := range u.Leases {
			if p.InRanges(lease.Addr) {
				taken++
			}
		}
		u.Free = freeCount(u.Size, taken)
		all = append(all, u)
	}
	return all, nil
}

// Summary is Usage without the leases. Its cost does not grow with them.
func (l *Local) Summary(ctx context.Context, def *network.Definition) (all []Usage, err error) {
	for _, s := range def.Subnets {
		u, err := l.summary(ctx, def, s)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

func (l *Local) summary(ctx context.Context, def *network.Definition, s network.Subnet) (u Usage, err error) {
	u = Usage{Subnet: s.Subnet, Size: poolOf(def, s).Size()}
	u.Counts, err = l.Leases.Count(ctx, poolName(def, s))
	u.Free = freeCount(u.Size, u.Counts.Held+u.Counts.Quarantined+u.Counts.Declined)
	return u, err
}

// GivesNothing lists the subnets of a network that hold no address for who asks
// for none by name.
func SubnetsWithoutRange(def *network.Definition) (all []netip.Prefix) {
	for _, s := range def.Subnets {
		if poolOf(def, s).Size().Sign() == 0 {
			all = append(all, s.Subnet)
		}
	}
	return all
}

func freeCount(size *big.Int, taken int) *big.Int {
	free := new(big.Int).Sub(size, big.NewInt(int64(taken)))
	if free.Sign() < 0 {
		return new(big.Int)
	}
	return free
}
