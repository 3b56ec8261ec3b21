package attach

import (
	"context"
	"errors"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Renew claims what the attachments of this host have in a store that hosts share. in is the store
// that [ipam.Shared] calls Renew with. Renew returns the first error of the store; that another host
// has got an address is none.
func (l *Local) Renew(ctx context.Context, kind network.LeaseStore, in ipam.Store) error {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return err
	}
	for _, a := range recs {
		if a.Leases != kind || a.State != hook.Attached {
			continue
		}
		if err := claimAgain(ctx, in, a); errors.Is(err, ipam.ErrTaken) {
			l.Log.Error("an address of a running container was given to another one", "network", a.Network,
				"attachment", a.ID, "err", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// claimAgain claims the addresses that an attachment has. It changes nothing in the store if the
// attachment holds them.
func claimAgain(ctx context.Context, in ipam.Store, a hook.Attachment) (err error) {
	l := ipam.Lease{Owner: ownerOf(a), MAC: a.MAC.String(), Name: leaseNameOf(a)}
	for i, p := range a.Addrs {
		l.Addr = p.Addr()
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
