package hook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// hostWindow is how long the LAN has to object to an address of the host's. It is
// asked once, when the network is made, and nobody's start waits for it.
const hostWindow = 300 * time.Millisecond

// hostMAC returns the MAC of the host's own link on a network. No container is given
// it, and it is the same after a boot.
func (l *Local) hostMAC(def *network.Definition) (verify.MAC, error) {
	return l.derivedMAC(def.ID, "host")
}

// settleHost gives the host an address in each subnet where the definition names
// none: the first that would be given out and that nobody holds, neither the host
// on another link nor, unless verification is off, anybody on the LAN.
func (l *Local) chooseHostAddrs(ctx context.Context, def *network.Definition, p link.Parent) error {
	mine, err := l.Host.HostAddrs()
	if err != nil {
		return err
	}
	for _, a := range def.HostAddresses {
		if hasAddr(mine, a) {
			return fmt.Errorf("--host-address %s is the host's already, on another link", a)
		}
		if r, err := l.claimantOnLAN(ctx, def, p, a); err != nil || r != nil {
			return errors.Join(err, hostAddrConflict(r))
		}
	}
	for _, s := range def.Subnets {
		if def.HostAddress(s).IsValid() {
			continue
		}
		a, err := l.freeForHost(ctx, def, p, s, mine)
		if err != nil {
			return fmt.Errorf("--host-access: %w", err)
		}
		def.HostAddresses = append(def.HostAddresses, a)
	}
	return nil
}

// createHost settles on the host's addresses on a new network, and makes its link. One
// that is there has been settled on before.
func (l *Local) createHostAccess(ctx context.Context, def *network.Definition, p link.Parent) error {
	there, _, err := l.Host.FindHostLink(def.HostLink())
	if err != nil {
		return err
	}
	if there == nil {
		if err := l.chooseHostAddrs(ctx, def, p); err != nil {
			return err
		}
		if err := def.Save(l.Networks); err != nil {
			return err
		}
	}
	failpoint("settle")
	_, _, err = l.ensureHostLink(ctx, def, p)
	failpoint("host-link")
	return err
}

func hasAddr(list []link.HostAddr, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(h link.HostAddr) bool { return h.Addr == a })
}

func hostAddrConflict(r *verify.Claimant) error {
	if r == nil {
		return nil
	}
	return fmt.Errorf("--host-address %s is held by %s on the LAN: give another", r.Addr, r.MAC)
}

// freeForHost goes through a subnet from its first address up.
func (l *Local) freeForHost(ctx context.Context, def *network.Definition, p link.Parent, s network.Subnet, mine []link.HostAddr) (netip.Addr, error) {
	pool, asked := poolOf(def, s), 0
	for _, span := range pool.Spans(netip.Addr{}) {
		for a := span.First; a.IsValid() && !span.Last.Less(a); a = a.Next() {
			if pool.Check(a) != nil || hasAddr(mine, a) {
				continue
			}
			if asked++; asked > maxCandidates {
				return a, fmt.Errorf("the first %d addresses of %s are all held by others on the LAN: name one that is free with --host-address", maxCandidates, pool)
			}
			if r, err := l.claimantOnLAN(ctx, def, p, a); err != nil || r == nil {
				return a, err
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address left for the host", pool)
}

// rivalOnLAN asks, from the parent, who holds an address.
func (l *Local) claimantOnLAN(ctx context.Context, def *network.Definition, p link.Parent, a netip.Addr) (*verify.Claimant, error) {
	if def.VerifyMode() == network.VerifyOff {
		return nil, nil
	}
	t := &attempt{Local: l, def: def, parent: p}
	f, err := t.askAsParent(ctx, verify.Plan{Addrs: []netip.Addr{a}, Window: max(hostWindow, time.Duration(def.ConflictWindow))})
	if err != nil || len(f.Claimants) == 0 {
		return nil, err
	}
	return &f.Claimants[0], nil
}

// ensureHost makes sure of the host's own link on a network, and gives its index;
// 0 where the network has none. Where the link had to be made, the routes that
// went with the one before are made again.
func (l *Local) ensureHostAccess(ctx context.Context, def *network.Definition, p link.Parent) (index int, err error) {
	if !def.HostAccess {
		return 0, nil
	}
	index, made, err := l.ensureHostLink(ctx, def, p)
	if err != nil || !made {
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

func (l *Local) ensureHostLink(ctx context.Context, def *network.Definition, p link.Parent) (index int, made bool, err error) {
	mac, err := l.hostMAC(def)
	if err != nil {
		return 0, false, err
	}
	spec := link.HostLinkSpec{
		Name: def.HostLink(), Parent: p, IPVlan: def.Driver == network.DriverIPvlan, MAC: mac.Hardware(), MTU: def.MTU, Addrs: def.HostAddresses,
	}
	for _, s := range def.Subnets {
		if !def.HostAddress(s).IsValid() {
			return 0, false, fmt.Errorf("host-address: the host has none in %s, as after a making that was broken off: give the command that makes it again, or remove the network", s.Subnet)
		}
		spec.IPv6 = spec.IPv6 || s.Subnet.Addr().Is6()
	}
	return l.Host.EnsureHostLink(ctx, spec)
}

// routeHost has the host reach an attachment's addresses by its own link.
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

// openToHost lets the host reach the new attachment, whose record says so
// already.
func (t *attempt) addHostRoutesToIt() error {
	if t.hostIfindex == 0 {
		return nil
	}
	if err := t.addHostRoutes(t.def, t.hostIfindex, &t.rec); err != nil {
		return err
	}
	t.reached("host")
	return nil
}

// unrouteHost takes the host's routes to an attachment away.
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

// hostLinkOf is the name of the host's own link on a network, "" if it has none.
func hostLinkName(def *network.Definition) string {
	if !def.HostAccess {
		return ""
	}
	return def.HostLink()
}

// hostMACs are the MACs of the host's own links on networks.
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
