package attach

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

// commit writes the complete attachment to its record. It returns hook.ErrGone if the record was
// removed. If it was an intent, it returns an error if the container has exited: the runtime may have
// been killed during the attach.
func (t *attempt) commit(ctx context.Context) error {
	if err := t.checkNotHosts(); err != nil {
		return err
	}
	if err := t.confirmLeases(ctx); err != nil {
		return err
	}
	if t.unwatched == "" {
		if err := t.Datapath.MarkInUse(t.rec.Endpoint); err != nil {
			return err
		}
	}
	was := t.rec
	t.rec.State, t.rec.Former, t.rec.Timing = hook.Attached, nil, t.r.Trace.Since(t.traceStart)
	if l := t.rec.ServerLease(t.replacing); t.replacing != 0 && l != nil {
		now := *l
		now.Lost = ""
		t.rec.SetServerLease(t.replacing, &now)
	}
	err := t.DB.Update(ctx, func(tx record.Tx) error {
		// Inside the transaction: a poststop before it leaves the record to this process, and
		// a poststop after it finds the attachment. An earlier attachment is removed by poststop
		// and sweep, and the process that its namespace was found by may be any in it.
		if was.State == hook.Attaching && !t.ns.Alive() {
			return fmt.Errorf("container %q exited during the attach", t.r.Container)
		}
		return t.replaceRow(tx, &t.rec)
	})
	if err != nil {
		t.rec = was
		return err
	}
	t.reached("commit")
	return nil
}

// checkNotHosts returns an error if an address was added to a link of this host since it was
// claimed.
func (t *attempt) checkNotHosts() error {
	claims, err := t.HostClaimants(t.rec)
	if err != nil || len(claims) == 0 {
		return err
	}
	return fmt.Errorf("address %s was added to %q of this host: remove it there, or start the container again",
		claims[0].Addr, claims[0].Link)
}

// confirmLeases returns an error if another host has got an address since it was claimed: this
// host's session in the store may have ended during the attach.
func (t *attempt) confirmLeases(ctx context.Context) error {
	if t.rec.Leases == "" {
		return nil
	}
	err := t.WithStore(ctx, t.rec.Leases, func(in ipam.Store) error { return claimAgain(ctx, in, t.rec) })
	switch {
	case !errors.Is(err, ipam.ErrTaken):
		return err
	case t.caller != nil: // a caller may not know the holder
		return errors.New("its address was given to another host: start the container again")
	}
	return fmt.Errorf("%w: start the container again", err)
}
