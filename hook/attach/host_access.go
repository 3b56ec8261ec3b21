package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// hostWindow is the conflict window for an address of the host. The LAN is asked once, when the
// network is created, so that no container's start waits for it.
const hostWindow = 300 * time.Millisecond

// ClaimantOnLAN asks for an address from the parent, and returns the station that has it, or nil.
// It does not ask if verification is off.
func (l *Local) ClaimantOnLAN(
	ctx context.Context, def *network.Definition, p link.Parent, a netip.Addr,
) (*verify.Claimant, error) {
	if def.VerifyMode() == verify.Off {
		return nil, nil
	}
	window := max(hostWindow, time.Duration(def.ConflictWindow))
	f, err := l.askAsParent(ctx, p, verify.Plan{Addrs: []netip.Addr{a}, Window: window})
	if err != nil || len(f.Claimants) == 0 {
		return nil, err
	}
	return &f.Claimants[0], nil
}

// EnsureHostAccess creates the host's own link on a network if it is missing, and returns its
// ifindex; 0 if the network has no host access. If it creates the link, it also adds the routes to
// the network's attachments, which were deleted with the earlier link.
func (l *Local) EnsureHostAccess(ctx context.Context, def *network.Definition, p link.Parent) (index int, err error) {
	if !def.HostAccess {
		return 0, nil
	}
	index, created, err := l.EnsureHostLink(ctx, def, p)
	if err != nil || !created {
		return index, err
	}
	recs, err := l.Attachments(ctx)
	for i := range recs {
		if a := &recs[i]; a.Network == def.Name && a.State == hook.Attached && a.HostLink != "" {
			aerr := l.whileAttached(ctx, a, func(now *hook.Attachment) error { return l.addHostRoutes(def, index, now) })
			if !errors.Is(aerr, hook.ErrGone) {
				err = errors.Join(err, aerr)
			}
		}
	}
	return index, err
}

// EnsureHostLink creates the host's own link if it is missing. It returns the link's ifindex, and
// whether it has created the link.
func (l *Local) EnsureHostLink(
	ctx context.Context, def *network.Definition, p link.Parent,
) (index int, created bool, err error) {
	mac, err := l.HostMAC(def)
	if err != nil {
		return 0, false, err
	}
	spec := link.HostLinkSpec{
		Name: def.HostLink(), Parent: p, IPVlan: def.Driver == network.DriverIPvlan,
		MAC: mac, MTU: def.MTU, Addrs: def.HostAddresses,
	}
	for _, s := range def.Subnets {
		if !def.HostAddress(s).IsValid() {
			return 0, false, fmt.Errorf("host-address: it is missing in %s, because creating the network was interrupted: "+
				"run the create command again, or remove the network", s.Subnet)
		}
		spec.IPv6 = spec.IPv6 || s.Subnet.Addr().Is6()
	}
	return l.Host.EnsureHostLink(ctx, spec)
}
