//go:build vm

package admin_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestHostAccessVLAN checks host access on a VLAN sub-interface that Lanyard created,
// also after a reboot, and by an ipvlan for ipvlan networks. All of it is removed with
// the network.
func TestHostAccessVLAN(t *testing.T) {
	for _, driver := range []string{network.DriverMacvlan, network.DriverIPvlan} {
		t.Run(driver, func(t *testing.T) {
			w := hooklab.New(t, testenv.Config{VLANs: []uint16{50}})
			w.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
			before := w.Links(w.Host)
			err := w.TryDefine("web", "eth9.50", func(d *network.Definition) {
				hostAccess(d)
				d.Driver = driver
				if driver == network.DriverIPvlan {
					d.Mode = network.ModeL2
				}
			}, "192.168.50.0/24", "fd50::/64")
			if err != nil && !strings.Contains(err.Error(), "driver ipvlan sends with the MAC") {
				t.Fatal(err)
			}
			reachHost(t, w, "c1")
			def := w.Definition("web")
			w.WantHostRoutes(def.HostLink())
			boot(t, w, "eth9.50") // and what stood on it
			if rows := w.Restore(); len(rows) != 1 || rows[0].Err != nil || !rows[0].Made {
				t.Errorf("restored %+v", rows)
			}
			if links := w.Links(w.Host); !slices.Contains(links, def.HostLink()) {
				t.Errorf("links of the host: %q", links)
			}
			reachHost(t, w, "c2")
			w.RemoveNetwork("web")
			if links := w.Links(w.Host); !slices.Equal(links, before) {
				t.Errorf("links of the host: %q, want %q", links, before)
			}
		})
	}
}

// reachHost attaches two containers to "web" and checks that host, gateway and containers
// reach each other.
func reachHost(t *testing.T, w *hooklab.Lab, id string) {
	t.Helper()
	a, b := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach(id+"a", a, "network=web", "ip=192.168.50.9", "ip6=fd50::9", "verify=strict")
	w.MustAttach(id+"b", b, "network=web", "ip=192.168.50.10", "ip6=fd50::10", "verify=strict")
	for _, addr := range []string{"192.168.50.9", "192.168.50.10", "fd50::9", "fd50::10"} {
		hooklab.Pings(t, w.Host, addr)
	}
	for _, addr := range append(strings.Fields(joinAddrs(w.Definition("web").HostAddresses)), "192.168.50.1", "fd50::1",
		"192.168.50.10") {
		hooklab.Pings(t, a.Namespace, addr)
	}
	w.WantNoUnleased()
	w.DetachAndEnd(id+"a", a)
	w.DetachAndEnd(id+"b", b)
}
