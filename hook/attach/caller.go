package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
)

// refuseCaller returns an error that wraps ErrRefused.
func refuseCaller(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{hook.ErrRefused}, args...)...)
}

// maxSharers is the number of containers that can hold one attachment of a caller. A caller can
// invent any number of container ids, and each is a row in the database.
const maxSharers = 64

// AttachFor is Attach for an untrusted caller: the process must be in a network namespace that the
// caller owns, and the networks must allow the caller. It returns an error that wraps ErrRefused if
// one of these is not so.
func (l *Local) AttachFor(ctx context.Context, c hook.Caller, r hook.Request) ([]hook.Attachment, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	ns, err := l.Host.OpenNetns(r.Pid)
	if err != nil {
		return nil, refuseCaller("container %q: %w", r.Container, err)
	}
	defer ns.Close()
	if err := checkOwns(c, ns); err != nil {
		return nil, refuseCaller("container %q: process %d: %w", r.Container, r.Pid, err)
	}
	return l.attachAll(ctx, r, ns, &c)
}

// checkOwns returns an error if the caller does not own the network namespace. Its owner is that of
// the outermost user namespace above it, just below the host's own. The user namespaces further in
// may belong to other uids that this user has chosen, such as subordinate uids, and these must not
// act for the user.
func checkOwns(c hook.Caller, ns *link.Netns) error {
	owners, err := ns.Owners()
	if err != nil {
		return err
	}
	if len(owners) < 2 {
		return errors.New("its network namespace is the host's own or a rootful container's")
	}
	if owner := owners[len(owners)-2]; owner != c.UID {
		return fmt.Errorf("its network namespace belongs to uid %d (owners from the inside out: %v)", owner, owners)
	}
	return nil
}

// DetachFor is Detach for the attachments of one caller. Attachments of other users with the same
// container id stay.
func (l *Local) DetachFor(ctx context.Context, c hook.Caller, containerID string) error {
	if err := hook.ValidID(containerID); err != nil {
		return err
	}
	return l.detach(ctx, containerID, func(a *hook.Attachment) bool { return a.Owner == c.UID })
}

// authorize returns an error if the network does not allow the caller, or not this interface. A nil
// caller is root, which may do everything.
func authorize(c *hook.Caller, def *network.Definition, w hook.Want) error {
	if c == nil {
		return nil
	}
	ok, err := def.Allows(c.UID, c.GIDs)
	if !ok {
		hint := errors.New("see its allow-user and allow-group")
		return refuseCaller("network %q does not allow uid %d: %w", def.Name, c.UID, errors.Join(err, hint))
	}
	// A chosen MAC may be that of a gateway or of a server that is down: the switch would send
	// its frames to the container.
	if !w.MAC.IsZero() {
		return errors.New("a rootless container cannot choose its MAC: omit io.lanyard.mac")
	}
	for _, a := range w.Addrs {
		for _, s := range def.Subnets {
			// Addresses outside the ranges belong to other stations of the LAN.
			if s.Subnet.Contains(a) && !inRanges(s, a) {
				return fmt.Errorf("address %s is outside the ranges of network %q: a rootless container cannot request it",
					a, def.Name)
			}
		}
	}
	return nil
}

// checkQuota returns an error that wraps errQuota if the caller has as many attachments as the
// network allows. It runs inside the intent's transaction, so that simultaneous hooks cannot exceed
// the quota.
func checkQuota(tx record.Tx, c *hook.Caller, def *network.Definition) error {
	if c == nil || c.UID == 0 {
		return nil
	}
	all, err := record.ByNetwork(tx, def.Name)
	if err != nil {
		return err
	}
	held := 0
	for _, a := range all {
		if a.Owner == c.UID {
			held++
		}
	}
	if held >= def.PerUser() {
		return fmt.Errorf("you have %d interfaces on it, and its --max-per-user is %d: %w", held, def.PerUser(), errQuota)
	}
	return nil
}

// errQuota is returned if the caller has as many attachments as the network allows.
var errQuota = errors.New("remove a container first")

// inRanges reports whether the network assigns the address.
func inRanges(s network.Subnet, a netip.Addr) bool {
	return len(s.Ranges) == 0 || slices.ContainsFunc(s.Ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}

// callerUID returns the uid that owns the attachments of the caller; 0 for root, with a nil caller.
func callerUID(c *hook.Caller) uint32 {
	if c == nil {
		return 0
	}
	return c.UID
}

// needsGuard reports whether the caller's attachment to a network is guarded. It returns an error
// if it has to be, but the network's IPAM mode or driver mode does not allow it.
func needsGuard(c *hook.Caller, def *network.Definition) (bool, error) {
	if c == nil || def.BrokeredMode() == network.BrokeredDirect {
		return false, nil
	}
	if def.IPAM == network.IPAMNone {
		return false, fmt.Errorf("a network without IPAM cannot be guarded, because there is no lease to enforce: "+
			"use another network for rootless containers, or one with --brokered %s", network.BrokeredDirect)
	}
	// The guard needs a MAC of the attachment's own, and this mode uses that of the parent.
	if def.SharesMAC() {
		return false, fmt.Errorf("mode %s cannot be guarded: use another network for rootless containers, "+
			"or one with --brokered %s", def.Mode, network.BrokeredDirect)
	}
	return true, nil
}
