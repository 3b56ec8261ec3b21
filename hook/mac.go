package hook

import (
	"errors"
	"fmt"
	"net"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// bucketMACs finds who has a MAC on a trunk: trunk's ifindex, "/", MAC, NUL, ID.
const bucketMACs = "macs"

func macKey(trunk int, mac verify.MAC) string { return fmt.Sprintf("%d/%s", trunk, mac) }

// chooseMAC settles the interface's MAC: what the container asked for; the
// parent's in mode passthru and with ipvlan, where the kernel gives no choice;
// else 02:42 and the IPv4 address, as Docker does, so that an address keeps its
// MAC and neighbours' caches stay right. Where another has that MAC on the trunk
// (equal subnets on two VLANs) or on the parent, or there is no IPv4 address, it
// is derived from network and address.
func (t *attempt) chooseMAC(tx Tx) error {
	if t.def.SharesMAC() {
		t.rec.MAC = verify.MACOf(t.parent.MAC)
		if !t.want.MAC.IsZero() && t.want.MAC != t.rec.MAC {
			return fmt.Errorf("MAC %s cannot be had: with %s, mode %s, the interface has that of parent %q, %s", t.want.MAC, t.def.Driver, t.def.Mode, t.parent.Name, t.rec.MAC)
		}
		return nil
	}
	if !t.want.MAC.IsZero() {
		t.rec.MAC = t.want.MAC
		if err := t.notGateways(tx, t.want.MAC); err != nil {
			return err
		}
		return t.freeMAC(tx, t.want.MAC)
	}
	if len(t.rec.Addrs) == 0 {
		t.rec.MAC = verify.MACOf(ipam.MACNamed(t.def.Name, t.leaseName()+"\x00"+t.rec.Interface))
		return t.freeMAC(tx, t.rec.MAC)
	}
	first := t.rec.Addrs[0].Addr()
	if !t.busy {
		t.rec.MAC = verify.MACOf(ipam.MAC(first))
		if t.freeMAC(tx, t.rec.MAC) == nil {
			return nil
		}
	}
	t.rec.MAC = verify.MACOf(ipam.MACIn(t.def.Name, first))
	return t.freeMAC(tx, t.rec.MAC)
}

// errMACTaken is returned for a MAC that another attachment has.
var errMACTaken = errors.New("MAC is in use")

// notGateways refuses the MAC of a gateway that answered another container on the
// trunk: whoever takes it takes its neighbours' way out with it.
func (t *attempt) notGateways(tx Tx, mac verify.MAC) error {
	recs, err := all(tx)
	for _, a := range recs {
		for _, v := range a.Verdicts {
			if v.MAC == mac && a.Endpoint.Trunk == t.parent.TrunkIndex {
				return fmt.Errorf("MAC %s cannot be had: it is that of gateway %s", mac, v.Gateway)
			}
		}
	}
	return err
}

// freeMAC refuses a MAC that another attachment has on the same trunk: tags
// that are wrong could not be told whose they are.
func (t *attempt) freeMAC(tx Tx, mac verify.MAC) error {
	holders, err := find(tx, bucketMACs, macKey(t.parent.TrunkIndex, mac))
	if err != nil {
		return err
	}
	for _, a := range holders {
		if a.ID != t.rec.ID {
			if t.caller != nil {
				return fmt.Errorf("%w: %s on trunk %q: ask for another address", errMACTaken, mac, t.parent.Trunk)
			}
			return fmt.Errorf("%w: %s on trunk %q by %s: ask for another io.lanyard.mac", errMACTaken, mac, t.parent.Trunk, users([]Attachment{a}))
		}
	}
	return nil
}

// requestMAC is what the kernel is asked for: nothing in mode passthru.
func (t *attempt) requestMAC() net.HardwareAddr {
	if t.def.SharesMAC() {
		return nil
	}
	return t.rec.MAC.Hardware()
}

// hasIPv6 reports whether the network has an IPv6 subnet, or leaves addresses
// to the workload. Elsewhere the interface has IPv6 off: no address that the
// kernel makes by itself.
func (t *attempt) hasIPv6() bool {
	if t.def.IPAM == network.IPAMNone {
		return true
	}
	for _, p := range t.rec.Addrs {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}
