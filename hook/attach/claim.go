package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

// claimAddrs claims one address in each chosen subnet and adds the subnets' gateways to the record.
func (t *attempt) claimAddrs(ctx context.Context, in ipam.Store) (err error) {
	if t.hostAddrs, err = t.Host.HostAddrs(); err != nil {
		return err
	}
	t.rec.Addrs, t.rec.Gateways = nil, nil
	for _, s := range t.subnets {
		a, err := t.claimIn(ctx, in, s)
		if err != nil {
			return err
		}
		t.rec.Addrs = append(t.rec.Addrs, netip.PrefixFrom(a, s.Subnet.Bits()))
		if s.Gateway.IsValid() && !t.def.Internal {
			t.rec.Gateways = append(t.rec.Gateways, s.Gateway)
		}
	}
	return nil
}

// claimIn claims one address of a subnet: the requested one, or the next free one.
func (t *attempt) claimIn(ctx context.Context, in ipam.Store, s network.Subnet) (netip.Addr, error) {
	name, p := parts.PoolName(t.def, s), parts.PoolOf(t.def, s)
	if err := t.reserveHosts(p.Reserved, s.Subnet, t.hostAddrs); err != nil {
		return netip.Addr{}, err
	}
	l := ipam.Lease{Owner: ownerOf(t.rec), Name: t.leaseName()}
	if !t.want.MAC.IsZero() {
		l.MAC = t.want.MAC.String()
	}
	for _, a := range t.want.Addrs {
		if !s.Subnet.Contains(a) {
			continue
		}
		if err := p.Check(a); err != nil {
			return netip.Addr{}, err
		}
		l.Addr = a
		err := in.Claim(ctx, name, l)
		// The error about a share names no holder.
		if t.caller != nil && t.outageOf() == nil && errors.Is(err, ipam.ErrTaken) {
			err = takenError{a}
		}
		return a, err
	}
	switch {
	case t.pickRandom:
		l.Addr = p.Start(rand.Text())
	case t.def.Allocate == network.AllocateStable:
		l.Addr = p.Start(l.Name)
	}
	return in.Next(ctx, name, p, l)
}

// takenError is ipam.ErrTaken without the holder, which a caller without privilege may not know.
type takenError struct{ addr netip.Addr }

func (e takenError) Error() string {
	return fmt.Sprintf("address %s is in use: request another one, or none", e.addr)
}

func (takenError) Unwrap() error { return ipam.ErrTaken }

// checkOwnAddrs returns an error that wraps ipam.ErrTaken if another container of this host has one of
// the addresses that this attach claimed in the store: it got it from the host's share at that moment,
// or it still uses one that the store has lost.
func (t *attempt) checkOwnAddrs(tx record.Tx) error {
	if t.def.OnOutage != network.OnOutageSlice {
		return nil
	}
	recs, err := record.ByNetwork(tx, t.def.Name)
	if err != nil {
		return err
	}
	for _, a := range recs {
		for _, addr := range addrsOf(&a) {
			switch {
			case a.ID == t.rec.ID || !slices.Contains(t.addrs(), addr):
			case t.caller != nil: // a caller may not know the holder
				return takenError{addr}
			default:
				return fmt.Errorf("%w: %s is held by %s", ipam.ErrTaken, addr, record.Users([]hook.Attachment{a}))
			}
		}
	}
	return nil
}

// recordAddrs records the addresses of an attach before its parent exists: see checkOwnAddrs.
func (t *attempt) recordAddrs(ctx context.Context) error {
	if t.def.OnOutage != network.OnOutageSlice {
		return nil
	}
	return t.DB.Update(ctx, func(tx record.Tx) error {
		if err := t.checkOwnAddrs(tx); err != nil {
			return err
		}
		return record.Replace(tx, &t.rec)
	})
}
