package attach

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// orphanQuarantine is the quarantine of an address that a lost record leaves: for how long it was
// used is unknown.
const orphanQuarantine = 30 * time.Second

// RenewShared makes a store that hosts share agree with the records. It releases what no record and no
// queued release names, as after the loss of the database, and claims what the attachments have. An
// attachment with an address that another host has got is marked as such, until it holds it again.
// RenewShared returns the first error of the store.
func (l *Local) RenewShared(ctx context.Context, kind network.LeaseStore, in ipam.Shared) error {
	// Before the records: every lease that is seen here was on record before it was claimed.
	mine, err := in.Mine(ctx)
	if err != nil {
		return err
	}
	l.outages.note(kind, nil, time.Now())
	recs, err := l.Attachments(ctx)
	if err != nil {
		return err
	}
	if err := l.releaseOrphans(ctx, in, mine, recs); err != nil {
		return err
	}
	for _, a := range recs {
		if a.Leases != kind || a.State != hook.Attached {
			continue
		}
		pendingErr := l.confirmPending(ctx, in, a)
		if pendingErr != nil && !errors.Is(pendingErr, ipam.ErrTaken) {
			return pendingErr
		}
		err := claimAgain(ctx, in, a)
		if err != nil && !errors.Is(err, ipam.ErrTaken) {
			return err
		}
		if err := l.markLost(ctx, a, errors.Join(pendingErr, err)); err != nil {
			return err
		}
	}
	return l.RenewShares(ctx, kind, in)
}

// releaseOrphans releases those of mine that belong to no record. An attachment with a queued
// release counts as on record.
func (l *Local) releaseOrphans(
	ctx context.Context, in ipam.Store, mine map[string][]ipam.Lease, recs []hook.Attachment,
) error {
	known := map[string]bool{}
	for _, a := range recs {
		known[a.ID.String()] = true
	}
	if err := l.DB.View(ctx, func(tx record.Tx) error {
		queued, err := record.Releases(tx, math.MaxInt)
		for _, r := range queued {
			known[r.Attachment.ID.String()] = true
		}
		return err
	}); err != nil {
		return err
	}
	for pool, leases := range mine {
		for _, lease := range leases {
			if known[lease.Owner.Attachment] {
				continue
			}
			l.Log.Warn("released an address that no attachment of this host has", "lease", lease.Addr, "pool", pool,
				"name", lease.Name)
			if err := in.Release(ctx, pool, lease.Owner, orphanQuarantine); err != nil {
				return err
			}
		}
	}
	return nil
}

// markLost writes to the record of an attachment that it has lost an address, with its new holder, or that
// it holds all of them again. taken wraps ipam.ErrTaken, or is nil.
func (l *Local) markLost(ctx context.Context, a hook.Attachment, taken error) error {
	lost := ""
	if taken != nil {
		lost = strings.ReplaceAll(taken.Error(), "\n", "; ")
	}
	if lost == a.Lost {
		return nil
	}
	if lost != "" {
		l.Log.With(a.LogAttrs()...).Error("another host has an address of a running container", "verdict",
			verify.LeaseLost, "err", taken)
	}
	err := l.DB.Update(ctx, func(tx record.Tx) error {
		row, err := record.Get(tx, a.ID)
		if err != nil {
			return err
		}
		row.Lost = lost
		return record.Replace(tx, &row)
	})
	if errors.Is(err, hook.ErrGone) {
		return nil // it has ended
	}
	return err
}

// lostLease returns the change of an attachment that does not hold its addresses any more, or not yet.
func lostLease(a *hook.Attachment) []verify.Change {
	switch {
	case a.Lost == "" && len(a.Pending) > 0:
		return []verify.Change{{Text: "the store of leases does not have its address yet, because it was out of reach at " +
			"the start: the address is in this host's share"}}
	case a.Lost == "":
		return nil
	case len(a.Pending) > 0:
		return []verify.Change{{Code: verify.LeaseLost, Text: "it started with an address of this host's share while the " +
			"store of leases was out of reach, and the store gave the address to another container: " + a.Lost +
			": start the container again"}}
	}
	return []verify.Change{{Code: verify.LeaseLost, Text: "this host's session in the store of leases has ended, and " +
		"another container got the address: " + a.Lost + ": start the container again"}}
}

// claimAgain claims the addresses that an attachment has, without those that are pending. It changes
// nothing in the store if the attachment holds them. Which MAC it requested is not known.
func claimAgain(ctx context.Context, in ipam.Store, a hook.Attachment) (err error) {
	l := ipam.Lease{Owner: ownerOf(a), Name: leaseNameOf(a)}
	for i, p := range a.Addrs {
		if l.Addr = p.Addr(); slices.Contains(a.Pending, l.Addr) {
			continue
		}
		if claimErr := in.Claim(ctx, a.Pools[i], l); claimErr != nil && !errors.Is(claimErr, ipam.ErrTaken) {
			return claimErr
		} else if claimErr != nil {
			err = errors.Join(err, claimErr)
		}
	}
	return err
}

// leaseNameOf returns the name that the leases of an attachment were claimed with, or "" after a
// rebuild, which does not know it.
func leaseNameOf(a hook.Attachment) string {
	if len(a.Containers) == 0 {
		return ""
	}
	var by *hook.Caller
	if a.Owner != 0 {
		by = &hook.Caller{UID: a.Owner}
	}
	return leaseName(a.Containers[0], a.Pod, by)
}
