package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// recordEndpoint sets the fields of the record that depend on the parent and the addresses: MAC
// and endpoint. It writes the record, so that they are in the database before they are used. It
// returns hook.ErrGone if a sweep removed the record.
func (t *attempt) recordEndpoint(ctx context.Context) error {
	t.rec.Parent, t.rec.ParentIdx, t.rec.Trunk = t.parent.Name, t.parent.Index, t.parent.Trunk
	if err := t.DB.Update(ctx, func(tx record.Tx) error {
		if err := t.checkOwnAddrs(tx); err != nil {
			return err
		}
		if err := t.chooseMAC(tx); err != nil {
			return err
		}
		t.rec.Endpoint = verify.Endpoint{
			Trunk: t.parent.TrunkIndex, Tags: t.parent.Tags, MAC: t.rec.MAC,
			Addrs: t.addrs(), Gateways: t.targets(),
			Attachment: t.rec.ID, Netns: t.rec.Netns.Cookie,
			// If the MAC is the parent's, frames of the host with other tags carry it, too.
			Enforce: t.rec.Mode != verify.Off && !t.def.SharesMAC(),
		}
		return t.replaceRow(tx, &t.rec)
	}); err != nil {
		return err
	}
	t.reached("record")
	return nil
}

// chooseMAC chooses the interface's MAC: the one that the container asked for; the
// parent's in mode passthru and with ipvlan, where the kernel gives no choice; else one
// that is derived, so that an address keeps its MAC on this host and neighbour caches
// stay right. By default it is derived from the host's identity, the network and the
// address: two hosts with the same definition never have the same MAC. With DHCP it is
// derived from the container's name: a server gives the same MAC the same address.
func (t *attempt) chooseMAC(tx record.Tx) (err error) {
	switch {
	case t.def.SharesMAC():
		t.rec.MAC = t.parent.MAC
		if !t.want.MAC.IsZero() && t.want.MAC != t.rec.MAC {
			return fmt.Errorf("cannot use MAC %s: with %s, mode %s, the interface has the MAC of parent %q, %s: "+
				"omit io.lanyard.mac", t.want.MAC, t.def.Driver, t.def.Mode, t.parent.Name, t.rec.MAC)
		}
		return nil
	case !t.want.MAC.IsZero():
		t.rec.MAC = t.want.MAC
		if err := t.checkNotGateway(tx, t.want.MAC); err != nil {
			return err
		}
		return t.checkMACFree(tx, t.want.MAC)
	}
	if t.rec.MAC, err = t.addressMAC(tx); err != nil || !t.rec.MAC.IsZero() {
		return err
	}
	name := t.ownName()
	if len(t.rec.Addrs) > 0 && !t.def.FromServers(int(hook.FamilyOf(t.rec.Addrs[0].Addr()))) {
		name = t.rec.Addrs[0].Addr().String()
	}
	if t.macBusy {
		name += alternativeMAC
	}
	if t.rec.MAC, err = t.DerivedMAC(t.def.Name, name); err != nil {
		return err
	}
	return t.checkMACFree(tx, t.rec.MAC)
}

// alternativeMAC is a part of the name from which the alternative MAC is derived, for an address
// with a first MAC that another link of the parent has.
const alternativeMAC = "\x00second"

// addressMAC returns 02:42 and the interface's first IPv4 address, where the network
// takes MACs from addresses and no other interface on the trunk or the parent has that
// MAC (equal subnets on two VLANs; Docker's older releases chose the same); else no MAC.
func (t *attempt) addressMAC(tx record.Tx) (mac ether.MAC, err error) {
	if t.def.MACFrom != network.MACFromAddress || t.macBusy {
		return mac, nil
	}
	i := slices.IndexFunc(t.rec.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() })
	if i < 0 {
		return mac, nil
	}
	mac = ipam.AddressMAC(t.rec.Addrs[i].Addr())
	if err := t.checkMACFree(tx, mac); errors.Is(err, errMACTaken) {
		return ether.MAC{}, nil
	} else if err != nil {
		return ether.MAC{}, err
	}
	return mac, nil
}

// errMACTaken is returned for a MAC that another attachment on the same trunk has.
var errMACTaken = errors.New("MAC is in use")

// checkNotGateway returns an error if a gateway on the trunk has answered another container with
// the MAC: a container with this MAC would receive the frames that other stations send to the
// gateway.
func (t *attempt) checkNotGateway(tx record.Tx, mac ether.MAC) error {
	recs, err := record.All(tx)
	for _, a := range recs {
		for _, v := range a.Verdicts {
			if v.MAC == mac && a.Endpoint.Trunk == t.parent.TrunkIndex {
				return fmt.Errorf("cannot use MAC %s: gateway %s has it: choose another with io.lanyard.mac", mac, v.Gateway)
			}
		}
	}
	return err
}

// checkMACFree returns an error that wraps errMACTaken if another attachment on the same trunk has
// the MAC: the datapath could not tell which of the two sent a frame with a wrong tag.
func (t *attempt) checkMACFree(tx record.Tx, mac ether.MAC) error {
	holders, err := record.ByMAC(tx, t.parent.TrunkIndex, mac)
	if err != nil {
		return err
	}
	for _, a := range holders {
		if a.ID != t.rec.ID {
			if t.caller != nil {
				return fmt.Errorf("%w: %s on trunk %q: request another address", errMACTaken, mac, t.parent.Trunk)
			}
			return fmt.Errorf("%w: %s on trunk %q by %s: choose another with io.lanyard.mac",
				errMACTaken, mac, t.parent.Trunk, record.Users([]hook.Attachment{a}))
		}
	}
	return nil
}
