package attach

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// detaching is an attachment that this process releases, with its state before.
type detaching struct {
	hook.Attachment
	before hook.State
}

// dropReferences drops the references to an attachment that over selects. If none remains, it marks
// the record as detaching, so that no container can join it, and returns it: the caller must then
// drop it.
func dropReferences(tx record.Tx, a hook.Attachment, over func(hook.Container) bool) (*detaching, error) {
	remaining := slices.DeleteFunc(slices.Clone(a.Containers), over)
	if len(remaining) > 0 {
		if len(remaining) == len(a.Containers) {
			return nil, nil
		}
		row := a
		a.Containers = remaining
		return nil, record.Write(tx, &row, &a)
	}
	self, err := netns.Self()
	if err != nil {
		return nil, err
	}
	t := &detaching{a, a.State}
	a.State, a.Hook = hook.Detaching, self
	return t, record.Write(tx, &t.Attachment, &a)
}

// drop releases all resources that the record names, complete or not, and deletes the record last.
// It tries every step, and a step without anything to undo succeeds. If a step fails, the record
// stays for the next sweep. The interface is deleted before its endpoint, and both before the
// leases are released, so that no address is assigned again while an old interface still answers
// for it. It does not end with ctx, because the record is marked already: a caller that hangs up would
// leave it to this process, and a service may run for months.
func (l *Local) drop(ctx context.Context, t detaching) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := l.dropAll(ctx, t)
	if err != nil {
		err = errors.Join(err, l.releaseForRetry(ctx, t.ID))
	}
	return err
}

// dropAll is drop, but does not clear the owner of the record after an error.
func (l *Local) dropAll(ctx context.Context, t detaching) error {
	quarantine := t.Quarantine
	if t.before == hook.Attaching {
		quarantine = 0 // the address was never announced
	}
	err := errors.Join(l.removeHostRoutes(t.Attachment), driver.Of(l.Parts, &t.Attachment).Remove(t.Attachment))
	if err == nil {
		err = l.giveBackAll(ctx, &t.Attachment, quarantine)
		failpoint.At("released")
		err = errors.Join(err, t.RemoveNames(l.Names))
	}
	err = errors.Join(err, l.revokePermit(t.Attachment), l.forget(t.Endpoint))
	if t.Former != nil {
		former := t.Attachment
		former.MAC = t.Former.MAC
		err = errors.Join(err, driver.Of(l.Parts, &former).Remove(former), l.dropFormer(t.Attachment))
	}
	if err != nil {
		return err
	}
	if t.Leases != "" {
		return l.removeAndRelease(ctx, t.Attachment, quarantine)
	}
	return l.WithStore(ctx, t.Leases, func(in ipam.Store) error {
		if err := releasePools(ctx, in, t.Attachment, quarantine); err != nil {
			return err
		}
		return l.DB.Update(ctx, func(tx record.Tx) error { return record.Remove(tx, t.ID) })
	})
}

// releasePools releases the leases of an attachment in its pools, up to the first error.
func releasePools(ctx context.Context, in ipam.Store, a hook.Attachment, quarantine time.Duration) error {
	for _, pool := range a.Pools {
		if err := in.Release(ctx, pool, ownerOf(a), quarantine); err != nil {
			return err
		}
	}
	return nil
}

// forget removes an endpoint from the datapath, if one is set.
func (l *Local) forget(e verify.Endpoint) error {
	if e.MAC.IsZero() || e.Trunk == 0 {
		return nil
	}
	return l.Datapath.Forget(e)
}

// dropFormer removes the permit and the endpoint that an attachment had before, if it has had
// another MAC or trunk.
func (l *Local) dropFormer(a hook.Attachment) error {
	if a.Former == nil || a.Former.MAC == a.MAC && a.Former.Trunk == a.Endpoint.Trunk {
		return nil
	}
	former := a
	former.MAC = a.Former.MAC
	return errors.Join(l.revokePermit(former), l.forget(*a.Former))
}

// forgetFormer is dropFormer for an attempt, which then has none any more.
func (t *attempt) forgetFormer() error {
	err := t.dropFormer(t.rec)
	if err == nil {
		t.rec.Former = nil
	}
	return err
}

// revokePermit removes the permit of an attachment's MAC, if its network guards the parent.
func (l *Local) revokePermit(a hook.Attachment) error {
	if !a.AtParent || a.ParentIdx == 0 || a.MAC.IsZero() {
		return nil
	}
	return l.Guards.Revoke(a.ParentIdx, a.MAC)
}

// releaseForRetry clears the process that owns a record, so that the next sweep retries a failed
// release. Otherwise the record would be locked until this process exits, which for a service may be
// never. If that fails, too, because the database is locked or has no space, it goes on in the
// background until it succeeds or the process exits.
func (l *Local) releaseForRetry(ctx context.Context, id verify.ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := l.clearOwner(ctx, id)
	if err != nil {
		go func() {
			for l.clearOwner(context.Background(), id) != nil {
				time.Sleep(clearRetry)
			}
		}()
	}
	return err
}

// clearRetry is the time between two tries to clear the owner of a record.
const clearRetry = time.Second

// clearOwner clears the process that owns a record, if the record exists.
func (l *Local) clearOwner(ctx context.Context, id verify.ID) error {
	return l.DB.Update(ctx, func(tx record.Tx) error {
		a, err := record.Get(tx, id)
		if errors.Is(err, hook.ErrGone) {
			return nil
		}
		if err == nil {
			a.Hook = netns.Process{}
			err = record.Put(tx, &a)
		}
		return err
	})
}
