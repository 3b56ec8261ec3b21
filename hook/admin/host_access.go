package admin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify"
)

// maxHostAddrs is the number of addresses that are tried for the host while each has a claimant.
const maxHostAddrs = 8

// chooseHostAddrs sets the host's address in each subnet of the definition that has none: the first
// one in the ranges that neither another link of the host has nor, unless verification is off,
// another station on the LAN. It returns an error if an address in the definition is in use.
func (l *Admin) chooseHostAddrs(ctx context.Context, def *network.Definition, p link.Parent) error {
	hostAddrs, err := l.Host.HostAddrs()
	if err != nil {
		return err
	}
	for _, a := range def.HostAddresses {
		if hasAddr(hostAddrs, a) {
			return fmt.Errorf("--host-address %s: another link of the host has it: choose another", a)
		}
		if r, err := l.ClaimantOnLAN(ctx, def, p, a); err != nil || r != nil {
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
func (l *Admin) createHostAccess(ctx context.Context, def *network.Definition, p link.Parent) error {
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
	_, _, err = l.EnsureHostLink(ctx, def, p)
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
func (l *Admin) freeForHost(
	ctx context.Context, def *network.Definition, p link.Parent, s network.Subnet, hostAddrs []link.HostAddr,
) (netip.Addr, error) {
	pool, asked := parts.PoolOf(def, s), 0
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
			if r, err := l.ClaimantOnLAN(ctx, def, p, a); err != nil || r == nil {
				return a, err
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address left for the host", pool)
}
