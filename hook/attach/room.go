package attach

import (
	"context"
	"errors"
	"math/big"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

// FullSubnets returns the subnets in which an attach finds no address for a container that requests none. As
// an attach does, it counts as free what is in quarantine, and what a sweep for room releases; while the
// store is out of reach, it looks at this host's share. It changes nothing.
func (l *Local) FullSubnets(ctx context.Context, def *network.Definition) (full []netip.Prefix, err error) {
	subnets, err := chooseSubnets(def, nil)
	if err != nil {
		return nil, err
	}
	for _, s := range subnets {
		free, err := l.hasRoomOrShare(ctx, def, s)
		if err != nil {
			return nil, err
		}
		if !free {
			full = append(full, s.Subnet)
		}
	}
	return full, nil
}

// hasRoomOrShare reports whether a subnet has an address, or this host's share of it while the store is out of reach.
func (l *Local) hasRoomOrShare(ctx context.Context, def *network.Definition, s network.Subnet) (free bool, err error) {
	if def.OnOutage != network.OnOutageSlice {
		return l.hasRoom(ctx, def, s)
	}
	outage := l.outages.recent(def.Leases, time.Now())
	if outage == nil {
		free, err = l.hasRoom(ctx, def, s)
		if !errors.Is(err, ipam.ErrOutOfReach) {
			if err == nil {
				l.outages.note(def.Leases, nil, time.Now())
			}
			return free, err
		}
		outage = err
		l.outages.note(def.Leases, outage, time.Now())
	}
	return l.shareHasRoom(ctx, def, s, outage)
}

// hasRoom reports whether a subnet has an address. Without a range, containers request theirs.
func (l *Local) hasRoom(ctx context.Context, def *network.Definition, s network.Subnet) (free bool, err error) {
	name, p := parts.PoolName(def, s), parts.PoolOf(def, s)
	size := p.Size()
	if size.Sign() == 0 {
		return true, nil
	}
	more := func(used int) bool { return size.Cmp(big.NewInt(int64(used))) > 0 }
	var leases []ipam.Lease
	err = l.WithStore(ctx, def.Leases, func(in ipam.Store) error {
		// The counts cost nothing, but include requested addresses outside of the range.
		counts, err := in.Count(ctx, name)
		free = more(counts.Held + counts.Declined)
		if free || err != nil {
			return err
		}
		leases, err = in.Leases(ctx, name)
		return err
	})
	if free || err != nil {
		return free, err
	}
	ends, err := l.ending(ctx)
	used := 0
	for _, lease := range leases {
		held := lease.State == ipam.Held && !ends[lease.Owner.Attachment]
		if p.InRanges(lease.Addr) && (held || lease.State == ipam.Declined) {
			used++
		}
	}
	return more(used), err
}

// ending returns the ids of the attachments that are being released, or that a sweep would release.
func (l *Local) ending(ctx context.Context) (map[string]bool, error) {
	recs, live, err := l.recordsWithLiveness(ctx)
	ids := map[string]bool{}
	for _, a := range recs {
		if a.State == hook.Detaching || !live(&a) {
			ids[a.ID.String()] = true
		}
	}
	return ids, err
}

// shareHasRoom reports whether this host's share of a subnet has an address. It does not count those that a sweep
// would release.
func (l *Local) shareHasRoom(
	ctx context.Context, def *network.Definition, s network.Subnet, outage error,
) (free bool, err error) {
	err = l.WithDB(ctx, func() error {
		return l.DB.View(ctx, func(tx record.Tx) error {
			if err := record.Ready(tx); err != nil {
				return err
			}
			c, err := l.choiceIn(tx, def, parts.PoolName(def, s), outage)
			if err != nil {
				return err
			}
			_, err = c.next(parts.PoolOf(def, s), netip.Addr{}, outage)
			return err
		})
	})
	if errors.Is(err, ipam.ErrPoolFull) {
		return false, nil
	}
	return err == nil, err
}
