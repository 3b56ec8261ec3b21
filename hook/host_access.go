package hook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// hostWindow is the conflict window for an address of the host. The LAN is asked once, when the
// network is created, so that no container's start waits for it.
const hostWindow = 300 * time.Millisecond

// maxHostAddrs is the number of addresses that are tried for the host while each has a claimant.
const maxHostAddrs = 8

// hostMAC returns the MAC of the host's own link on a network. No container gets it, and it is the
// same after a boot.
func (l *Local) hostMAC(def *network.Definition) (verify.MAC, error) {
	return l.derivedMAC(def.ID, "host")
}

// chooseHostAddrs sets the host's address in each subnet of the definition that has none: the first
// one in the ranges that neither another link of the host has nor, unless verification is off,
// another station on the LAN. It returns an error if an address in the definition is in use.
func (l *Local) chooseHostAddrs(ctx context.Context, def *network.Definition, p link.Parent) error {
	hostAddrs, err := l.Host.HostAddrs()
	if err != nil {
		return err
	}
	for _, a := range def.HostAddresses {
		if hasAddr(hostAddrs, a) {
			return fmt.Errorf("--host-address %s: another link of the host has it: choose another", a)
		}
		if r, err := l.claimantOnLAN(ctx, def, p, a); err != nil || r != nil {
			return errors.Join(err, hostAddrConflict(r))
		}
	}
	for _, s := range def.Subnets {
		if def.HostAddress(s).IsValid() {
			continue
		}
		a, err := l.freeForHost(ctx, def, p, s, hostAddrs)
		if err != nil {
			return fmt.Errorf("--host-access: %w", err)
		}
		def.HostAddresses = append(def.HostAddresses, a)
	}
	return nil
}

// createHostAccess chooses the host's addresses on a new network, writes them to the definition,
// and creates the host's link. If the link exists, an earlier call has already chosen them.
func (l *Local) createHostAccess(ctx context.Context, def *network.Definition, p link.Parent) error {
	existing, _, err := l.Host.FindHostLink(def.HostLink())
	if err != nil {
		return err
	}
	if existing == nil {
		if err := l.chooseHostAddrs(ctx, def, p); err != nil {
			return err
		}
		if err := def.Save(l.Networks); err != nil {
			return err
		}
	}
	failpoint.At("settle")
	_, _, err = l.ensureHostLink(ctx, def, p)
	failpoint.At("host-link")
	return err
}

// hasAddr reports whether the host has the address.
func hasAddr(list []link.HostAddr, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(h link.HostAddr) bool { return h.Addr == a })
}

// hostAddrConflict returns the error for a claimant of the host's address; nil for none.
func hostAddrConflict(c *verify.Claimant) error {
	if c == nil {
		return nil
	}
	return fmt.Errorf("--host-address %s: station %s on the LAN has it: choose another", c.Addr, c.MAC)
}

// freeForHost returns the first address of a subnet that is free for the host, see chooseHostAddrs.
// hostAddrs are the addresses that the host has.
func (l *Local) freeForHost(
	ctx context.Context, def *network.Definition, p link.Parent, s network.Subnet, hostAddrs []link.HostAddr,
) (netip.Addr, error) {
	pool, asked := poolOf(def, s), 0
	for _, span := range pool.Spans(netip.Addr{}) {
		for a := span.First; a.IsValid() && !span.Last.Less(a); a = a.Next() {
			if pool.Check(a) != nil || hasAddr(hostAddrs, a) {
				continue
			}
			if asked == maxHostAddrs {
				return a, fmt.Errorf("other stations on the LAN have the first %d addresses of %s: "+
					"set a free one with --host-address", maxHostAddrs, pool)
			}
			asked++
			if r, err := l.claimantOnLAN(ctx, def, p, a); err != nil || r == nil {
				return a, err
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address left for the host", pool)
}

// claimantOnLAN asks for an address from the parent, and returns the station that has it, or nil.
// It does not ask if verification is off.
func (l *Local) claimantOnLAN(
	ctx context.Context, def *network.Definition, p link.Parent, a netip.Addr,
) (*verify.Claimant, error) {
	if def.VerifyMode() == network.VerifyOff {
		return nil, nil
	}
	t := &attempt{Local: l, def: def, parent: p}
	window := max(hostWindow, time.Duration(def.ConflictWindow))
	f, err := t.askAsParent(ctx, verify.Plan{Addrs: []netip.Addr{a}, Window: window})
	if err != nil || len(f.Claimants) == 0 {
		return nil, err
	}
	return &f.Claimants[0], nil
}

// ensureHostAccess creates the host's own link on a network if it is missing, and returns its
// ifindex; 0 if the network has no host access. If it creates the link, it also adds the routes to
// the network's attachments, which were deleted with the earlier link.
func (l *Local) ensureHostAccess(ctx context.Context, def *network.Definition, p link.Parent) (index int, err error) {
	if !def.HostAccess {
		return 0, nil
	}
	index, created, err := l.ensureHostLink(ctx, def, p)
	if err != nil || !created {
		return index, err
	}
	recs, err := l.Attachments(ctx)
	for i := range recs {
		if a := &recs[i]; a.Network == def.Name && a.State == Attached && a.HostLink != "" {
			err = errors.Join(err, l.addHostRoutes(def, index, a))
		}
	}
	return index, err
}

// ensureHostLink creates the host's own link if it is missing. It returns the link's ifindex, and
// whether it has created the link.
func (l *Local) ensureHostLink(
	ctx context.Context, def *network.Definition, p link.Parent,
) (index int, created bool, err error) {
	mac, err := l.hostMAC(def)
	if err != nil {
		return 0, false, err
	}
	spec := link.HostLinkSpec{
		Name: def.HostLink(), Parent: p, IPVlan: def.Driver == network.DriverIPvlan,
		MAC: mac.Hardware(), MTU: def.MTU, Addrs: def.HostAddresses,
	}
	for _, s := range def.Subnets {
		if !def.HostAddress(s).IsValid() {
			return 0, false, fmt.Errorf("host-address: there is none in %s, because creating the network was interrupted: "+
				"run the create command again, or remove the network", s.Subnet)
		}
		spec.IPv6 = spec.IPv6 || s.Subnet.Addr().Is6()
	}
	return l.Host.EnsureHostLink(ctx, spec)
}

// addHostRoutes adds a host route to each address of an attachment, through the host's own link
// with an ifindex.
func (l *Local) addHostRoutes(def *network.Definition, index int, a *Attachment) error {
	for _, p := range a.Addrs {
		for _, s := range def.Subnets {
			if !s.Subnet.Contains(p.Addr()) {
				continue
			}
			if err := l.Host.RouteHost(index, p.Addr(), def.HostAddress(s)); err != nil {
				return err
			}
		}
	}
	return nil
}

// routeFromHost adds the host's routes to the new attachment. Its record already names the
// host's link.
func (t *attempt) routeFromHost() error {
	if t.hostIfindex == 0 {
		return nil
	}
	if err := t.addHostRoutes(t.def, t.hostIfindex, &t.rec); err != nil {
		return err
	}
	t.reached("host")
	return nil
}

// removeHostRoutes removes the host's routes to an attachment.
func (l *Local) removeHostRoutes(a Attachment) error {
	if a.HostLink == "" {
		return nil
	}
	var to []netip.Addr
	for _, p := range a.Addrs {
		to = append(to, p.Addr())
	}
	return l.Host.UnrouteHost(a.HostLink, to)
}

// hostLinkName returns the name of the host's own link on a network, or "" without host access.
func hostLinkName(def *network.Definition) string {
	if !def.HostAccess {
		return ""
	}
	return def.HostLink()
}

// hostMACs returns the MACs of the host's own links on networks.
func (l *Local) hostMACs(defs []*network.Definition) (macs []verify.MAC, err error) {
	for _, d := range defs {
		if !d.HostAccess {
			continue
		}
		mac, err := l.hostMAC(d)
		if err != nil {
			return nil, err
		}
		macs = append(macs, mac)
	}
	return macs, nil
}
