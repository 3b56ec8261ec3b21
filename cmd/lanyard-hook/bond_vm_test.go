//go:build vm

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestBondMoves checks that containers on a bond, and on a bridge with a bond as port, are reachable
// after the bond has changed its active port while both ports are up: the switch has learned their
// MACs on the other port. On these kernels, the kernel announces the addresses of macvlans on the
// bond itself; the service announces the others. A guarded container may send something by itself
// within the test, which teaches the switch, too.
func TestBondMoves(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	b := newBrokered(t, testenv.Config{VLANs: []uint16{50, 60, 70}})
	gw50 := b.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
	gw60, gw70 := b.AddGateway(60, "192.168.60.1/24"), b.AddGateway(70, "192.168.70.1/24")
	b.AddUplink("eth8")
	hooklab.IP(t, b.Host, "link add bond0 type bond mode active-backup")
	for _, port := range []string{"eth9", "eth8"} {
		hooklab.IP(t, b.Host, "link set "+port+" down")
		hooklab.IP(t, b.Host, "link set "+port+" master bond0")
	}
	hooklab.IP(t, b.Host, "link set bond0 up")
	hooklab.IP(t, b.Host, "link add br0 type bridge")
	hooklab.IP(t, b.Host, "link set br0 up")
	hooklab.IP(t, b.Host, "link add link bond0 name uplink60 type vlan id 60")
	hooklab.IP(t, b.Host, "link set uplink60 master br0 up")
	active := func(port string) { hooklab.IP(t, b.Host, "link set bond0 type bond active_slave "+port) }
	active("eth9")
	b.Define("web", "bond0.50", func(d *network.Definition) { d.AllowUsers = []string{"1000"} },
		"192.168.50.0/24", "fd50::/64")
	b.Define("bridged", "br0", nil, "192.168.60.0/24")
	err := b.TryDefine("shared", "bond0.70", func(d *network.Definition) {
		d.Driver, d.Mode = network.DriverIPvlan, network.ModeL2
	}, "192.168.70.0/24")
	if err == nil || !strings.Contains(err.Error(), "driver ipvlan sends with the MAC") {
		t.Fatal(err) // the note that the frames of an ipvlan cannot be watched
	}
	root, user := testenv.NewContainer(t), testenv.NewRootless(t, alice)
	bridged, shared := testenv.NewContainer(t), testenv.NewContainer(t)
	b.MustAttach("c1", root, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	b.mustAttachBy(alice, "c2", user.Pid, "network=web", "ip=192.168.50.10", "ip6=fd50::10")
	b.MustAttach("c3", bridged, "network=bridged", "ip=192.168.60.9")
	b.MustAttach("c4", shared, "network=shared", "ip=192.168.70.9")
	containers := []struct {
		name   string
		from   *testenv.Station
		to     string
		silent bool // without the service
	}{
		{"on a VLAN", gw50, "192.168.50.9", false}, {"on a VLAN, IPv6", gw50, "fd50::9", false},
		{"guarded", gw50, "192.168.50.10", false}, {"guarded, IPv6", gw50, "fd50::10", false},
		{"on a bridge", gw60, "192.168.60.9", true}, {"ipvlan", gw70, "192.168.70.9", true},
	}
	// With permanent neighbour entries, the containers send no questions of their own.
	for _, n := range []struct {
		in *testenv.Namespace
		gw *testenv.Station
		to string
	}{
		{root.Namespace, gw50, "192.168.50.1"}, {root.Namespace, gw50, "fd50::1"},
		{user.Namespace, gw50, "192.168.50.1"}, {user.Namespace, gw50, "fd50::1"},
		{bridged.Namespace, gw60, "192.168.60.1"}, {shared.Namespace, gw70, "192.168.70.1"},
	} {
		hooklab.IP(t, n.in, "neigh replace "+n.to+" lladdr "+n.gw.MAC.String()+" dev eth0 nud permanent")
	}
	// The stations have neighbour entries, and do not ask for the containers again.
	move := func(to string, served bool) {
		t.Helper()
		for _, c := range containers {
			hooklab.Pings(t, c.from.Namespace, c.to)
		}
		active(to)
		time.Sleep(500 * time.Millisecond)
		for _, c := range containers {
			_, err := c.from.Exec("ping", "-n", "-c1", "-W1", c.to)
			if served && err != nil || !served && c.silent && err == nil {
				t.Errorf("%s: reached is %t after a move to %s, with a service: %t", c.name, err == nil, to, served)
			}
		}
	}
	move("eth8", true)
	b.stop()
	move("eth9", false)
}
