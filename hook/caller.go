package hook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// Caller is a user without privilege, for whom a broker attaches. The kernel
// says who it is; nothing here comes from the caller's own words.
type Caller struct {
	UID  uint32
	GIDs []uint32 // all that the caller's process is a member of
}

// ErrRefused is returned to a Caller who may not have what was asked for. What
// it is joined with is for the operator's log: told to the caller, it would say
// which networks, processes and namespaces of others there are.
var ErrRefused = errors.New("refused")

func refusal(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// maxSharers bounds how many containers hold one attachment of a caller's: a
// caller can make up as many container ids as there are numbers, and each is a
// row in the database.
const maxSharers = 64

// AttachFor is Attach for a caller whom nobody trusts: the process must be in a
// network namespace that is the caller's own, and the networks must allow it.
func (l *Local) AttachFor(ctx context.Context, c Caller, r Request) ([]Attachment, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	ns, err := l.Host.OpenNetns(r.Pid)
	if err != nil {
		return nil, refusal("container %q: %w", r.Container, err)
	}
	defer ns.Close()
	if err := c.checkOwns(ns); err != nil {
		return nil, refusal("container %q: process %d: %w", r.Container, r.Pid, err)
	}
	return l.attachAll(ctx, r, ns, &c)
}

// owns compares the caller with the maker of the user namespaces that the
// network namespace is under: the outermost of them, just below the host's own.
// Those further in belong to whomever that user chose, subordinate uids among
// them; none of these may speak for the user.
func (c Caller) checkOwns(ns *link.Netns) error {
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

// DetachFor is Detach of what the caller holds; what others hold under the same
// container id stays.
func (l *Local) DetachFor(ctx context.Context, c Caller, containerID string) error {
	if err := validID(containerID); err != nil {
		return err
	}
	return l.detach(ctx, containerID, func(a *Attachment) bool { return a.Owner == c.UID })
}

// admit says whether the caller may have what it wants of the network.
func (c *Caller) authorize(def *network.Definition, w Want) error {
	if c == nil {
		return nil
	}
	ok, err := def.Allows(c.UID, c.GIDs)
	if !ok {
		return refusal("network %q does not allow uid %d: %w", def.Name, c.UID, errors.Join(err, errors.New("see its allow-user and allow-group")))
	}
	// A chosen MAC may be that of a gateway or of a server that is down: the
	// switch would hand over its frames.
	if !w.MAC.IsZero() {
		return errors.New("a rootless container cannot choose its MAC: leave io.lanyard.mac out")
	}
	for _, a := range w.Addrs {
		for _, s := range def.Subnets {
			// Outside the ranges are addresses that the LAN gives to others.
			if s.Subnet.Contains(a) && !inRanges(s, a) {
				return fmt.Errorf("address %s is outside of what network %q gives out: a rootless container cannot ask for it", a, def.Name)
			}
		}
	}
	return nil
}

// quota says, inside the intent's transaction, whether the caller may have one
// more: 64 hooks at once cannot all be the last.
func (c *Caller) checkQuota(tx Tx, def *network.Definition) error {
	if c == nil || c.UID == 0 {
		return nil
	}
	all, err := find(tx, bucketNetworks, def.Name)
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

// errQuota is returned when the caller has all that a network allows.
var errQuota = errors.New("remove a container first")

func inRanges(s network.Subnet, a netip.Addr) bool {
	return len(s.Ranges) == 0 || slices.ContainsFunc(s.Ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}

// user is who holds the attachments that are made: 0 for root.
func (c *Caller) owner() uint32 {
	if c == nil {
		return 0
	}
	return c.UID
}

// guarded says whether a caller's attachment is, and refuses what cannot be.
func (c *Caller) needsGuard(def *network.Definition) (bool, error) {
	if c == nil || def.BrokeredMode() == network.BrokeredDirect {
		return false, nil
	}
	if def.IPAM == network.IPAMNone {
		return false, fmt.Errorf("a network that gives no addresses cannot be guarded, as there are none to hold a container to: rootless containers need another, or one with --brokered %s", network.BrokeredDirect)
	}
	// A MAC that is the parent's own is not the lease's.
	if def.SharesMAC() {
		return false, fmt.Errorf("mode %s cannot be guarded: rootless containers need another network, or one with --brokered %s", def.Mode, network.BrokeredDirect)
	}
	return true, nil
}
