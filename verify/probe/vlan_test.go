//go:build vm

package probe_test

import (
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// TestVLANsApart has a gateway with the same addresses on each network of a trunk. A prober must
// hear only that of its own network, also while the other gateways announce themselves, and whether
// or not the host has an interface for their VLAN.
func TestVLANsApart(t *testing.T) {
	l := testenv.NewLab(t, testenv.Config{VLANs: []uint16{50, 60}})
	_, err := l.Host.Exec("ip", "link", "add", "link", l.Trunk, "name", "eth9.50", "up", "type", "vlan", "id", "50")
	must(t, err)
	stations := map[uint16]*testenv.Station{}
	for _, vid := range []uint16{0, 50, 60} {
		stations[vid] = l.AddGateway(vid, gateway4.String()+"/24", gateway6.String()+"/64")
	}
	ns := testenv.NewNamespace(t, "container")
	for vid, p := range map[uint16]containerLink{
		0:  mustMacvlanOn(t, l, "eth9", ns, "lan0", ether.MAC{0x02, 0x42, 192, 168, 50, 2}),
		50: mustMacvlanOn(t, l, "eth9.50", ns, "lan50", ether.MAC{0x02, 0x42, 192, 168, 50, 3}),
	} {
		withEachProber(t, p, func(t *testing.T, prober verify.Prober) {
			for _, q := range []verify.Question{{Addr: gateway4, Conflict: true}, {Addr: gateway6, Conflict: true}} {
				ask(t, triggeringProber{prober, func() error { return announceOthers(stations, vid) }}, q, stations[vid].MAC)
				askSilence(t, triggeringProber{silentProber{prober}, func() error { return announceOthers(stations, vid) }}, q)
			}
		})
	}
}

// A silentProber only listens.
type silentProber struct{ verify.Prober }

func (silentProber) Ask(verify.Question) error { return nil }

// announceOthers has the gateways of all networks but one announce themselves.
func announceOthers(stations map[uint16]*testenv.Station, but uint16) error {
	for vid, s := range stations {
		if vid == but {
			continue
		}
		if err := s.Do(func() error {
			link, err := s.Netlink().LinkByName(testenv.NIC)
			if err != nil {
				return err
			}
			for _, build := range []func() ([]byte, error){
				func() ([]byte, error) { return arp.Announce(s.MAC, gateway4) },
				func() ([]byte, error) { return ndp.Announce(s.MAC, gateway6) },
			} {
				frame, err := build()
				if err != nil {
					return err
				}
				if err := (probe.SocketSender{}).Send(link.Attrs().Index, frame); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
