package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

// wantedShare is a share that a definition asks for.
type wantedShare struct {
	network, pool string
	ranges        []netip.Prefix
}

// sharesOf returns the shares that a definition asks for.
func sharesOf(def *network.Definition) (all []wantedShare) {
	for _, s := range def.Subnets {
		if ranges := def.Share(s); len(ranges) > 0 {
			all = append(all, wantedShare{def.Name, parts.PoolName(def, s), ranges})
		}
	}
	return all
}

// RenewShares reserves the shares that the definitions request, or reads them again, and gives back all
// other shares of the host. It returns the first error of the store. A share that the store
// refuses is no error of it: the reason is recorded, and logged once.
func (l *Local) RenewShares(ctx context.Context, kind network.LeaseStore, in ipam.Shares) error {
	defs, broken := network.LoadAll(l.Networks)
	var wanted []wantedShare
	for _, def := range defs {
		if def.Leases == kind {
			wanted = append(wanted, sharesOf(def)...)
		}
	}
	if len(broken) == 0 { // else a share may be that of a network with an invalid file
		if err := l.giveBackShares(ctx, in, wanted); err != nil {
			return err
		}
	}
	for _, w := range wanted {
		switch err := l.reserveShare(ctx, in, w); {
		case errors.Is(err, ipam.ErrOutOfReach):
			return err
		case err != nil:
			if err := l.refuseShare(ctx, w, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// giveBackShares gives back the shares that are not wanted, or with other ranges. It keeps one with an
// address that a container got while the store was out of reach, until the store has the lease.
func (l *Local) giveBackShares(ctx context.Context, in ipam.Shares, wanted []wantedShare) error {
	keep := map[string][]netip.Prefix{}
	for _, w := range wanted {
		keep[w.pool] = w.ranges
	}
	if err := l.DB.Update(ctx, func(tx record.Tx) error { return removeShares(tx, keep) }); err != nil {
		return err
	}
	reserved, err := in.Reserved(ctx)
	if err != nil {
		return err
	}
	// Keep the shares that another process has recorded since.
	known, err := l.Shares(ctx)
	if err != nil {
		return err
	}
	for _, s := range known {
		keep[s.Pool] = s.Ranges
	}
	for _, r := range reserved {
		// A share with other ranges could block the reservation of another host.
		if slices.Equal(keep[r.Pool], r.Ranges) {
			continue
		}
		if err := in.GiveBack(ctx, r); err != nil {
			return err
		}
		l.Log.Info("gave back this host's share of a pool", "pool", r.Pool, "share", joinPrefixes(r.Ranges))
	}
	return nil
}

// removeShares removes the records of the shares that are not in keep, ranges by pool. It adds to keep
// those of pools with pending addresses.
func removeShares(tx record.Tx, keep map[string][]netip.Prefix) error {
	recs, err := record.All(tx)
	if err != nil {
		return err
	}
	for _, a := range recs {
		if len(a.Pending) == 0 {
			continue
		}
		for _, pool := range a.Pools {
			s, err := record.ShareOf(tx, pool)
			if err != nil {
				return err
			}
			if s != nil {
				keep[pool] = s.Ranges
			}
		}
	}
	all, err := record.Shares(tx)
	for _, s := range all {
		if !slices.Equal(keep[s.Pool], s.Ranges) {
			err = errors.Join(err, record.RemoveShare(tx, s.Pool))
		}
	}
	return err
}

// reserveShare reserves a share, and records what the store answers. It does nothing if the host still
// needs the share with other ranges.
func (l *Local) reserveShare(ctx context.Context, in ipam.Shares, w wantedShare) error {
	attempt := ""
	if err := l.DB.Update(ctx, func(tx record.Tx) error {
		s, err := record.ShareOf(tx, w.pool)
		switch {
		case err != nil || s != nil && !slices.Equal(s.Ranges, w.ranges):
			return err
		case s == nil:
			s = &record.Share{Pool: w.pool, Network: w.network, Ranges: w.ranges, Attempt: record.NewID().String()}
			err = record.PutShare(tx, s)
		}
		attempt = s.Attempt
		return err
	}); err != nil || attempt == "" {
		return err
	}
	got, err := in.Reserve(ctx, w.pool, w.ranges)
	if err != nil {
		return err
	}
	return l.updateShare(ctx, w.pool, func(s *record.Share) {
		if s.Attempt != attempt {
			return
		}
		if !s.Confirmed {
			l.Log.Info("has a share of a pool for outages of the store", "pool", w.pool, "share", joinPrefixes(got.Ranges),
				"revision", got.Revision)
		}
		confirmShare(s, got)
	})
}

// confirmShare writes an answer of the store to a share. An answer that is older than the last one is
// late, or the store was restored from a backup. Other hosts may have the addresses of both answers
// then, until there is a newer one.
func confirmShare(s *record.Share, got ipam.Share) {
	if s.Confirmed && s.Cluster == got.Cluster && got.Revision < s.Revision {
		s.Except = slices.Concat(s.Except, got.Except)
		slices.SortFunc(s.Except, netip.Addr.Compare)
		s.Except = slices.Compact(s.Except)
		return
	}
	s.Except, s.Cluster, s.Revision, s.Place = got.Except, got.Cluster, got.Revision, got.Place
	s.Confirmed, s.Why = true, ""
}

// refuseShare records that the store refuses a share.
func (l *Local) refuseShare(ctx context.Context, w wantedShare, refused error) error {
	why := strings.ReplaceAll(refused.Error(), "\n", "; ")
	return l.updateShare(ctx, w.pool, func(s *record.Share) {
		if s.Confirmed || s.Why != why {
			l.Log.Error("no share for outages of the store: new containers are refused then", "network", w.network,
				"pool", w.pool, "err", why)
		}
		s.Confirmed, s.Why = false, why
	})
}

// updateShare changes the share of a pool, if it has one.
func (l *Local) updateShare(ctx context.Context, pool string, change func(*record.Share)) error {
	return l.DB.Update(ctx, func(tx record.Tx) error {
		s, err := record.ShareOf(tx, pool)
		if err != nil || s == nil {
			return err
		}
		change(s)
		return record.PutShare(tx, s)
	})
}

// Shares returns what this host knows of its shares.
func (l *Local) Shares(ctx context.Context) (all []record.Share, err error) {
	err = l.WithDB(ctx, func() error {
		return l.DB.View(ctx, func(tx record.Tx) (err error) {
			if err = record.Ready(tx); err == nil {
				all, err = record.Shares(tx)
			}
			return err
		})
	})
	return all, err
}

// ReserveShares reserves the shares of networks, up to the first error, which names the network. If it
// wraps ipam.ErrOutOfReach, the service reserves the shares later.
func (l *Local) ReserveShares(ctx context.Context, defs []*network.Definition) error {
	for _, def := range defs {
		for _, w := range sharesOf(def) {
			store, err := l.Leases.Shared(def.Leases)
			if err == nil {
				err = l.reserveShare(ctx, store, w)
			}
			if err != nil {
				return fmt.Errorf("network %q: %w", def.Name, err)
			}
		}
	}
	return nil
}
