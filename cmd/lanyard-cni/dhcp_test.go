package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// TestNamesOfServers checks that the result has the name servers and search domains that DHCP servers of both
// families have given, and those of the network in their place.
func TestNamesOfServers(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	w := newWorld(t, testenv.Config{})
	gw := w.AddGateway(0, "192.168.50.1/24", "fd78::1/64")
	gw.ServeDHCP("192.168.50.100,192.168.50.150,120", "--dhcp-option=option:dns-server,192.168.50.53",
		"--dhcp-option=option:domain-search,leased.example")
	gw.ServeKea6("fd78::/64", "fd78::100 - fd78::1ff") // gives fd78::53
	gw.ServeRadvd("AdvManagedFlag on; AdvDefaultLifetime 60; prefix fd78::/64 { AdvAutonomous off; };")
	for name, edit := range map[string]func(*network.Definition){
		"learned": func(*network.Definition) {},
		"own":     func(d *network.Definition) { d.DNS = []netip.Addr{netip.MustParseAddr("192.168.50.1")} },
	} {
		w.Define(name, w.Trunk, func(d *network.Definition) {
			d.IPAM, d.IPv6Mode, d.ShareParent = network.IPAMDHCP, network.IPv6DHCP, true
			d.Deadline = network.Duration(4 * time.Second)
			edit(d)
		})
	}
	w.StartService()
	for network, want := range map[string]string{
		"learned": "{[192.168.50.53 fd78::53]  [leased.example] []}",
		"own":     "{[192.168.50.1]  [leased.example] []}",
	} {
		lan, s := w.list("lan", plugin(network)), newSandbox(t)
		r := w.mustAdd(lan, s.conf(network))
		if got := fmt.Sprint(r.DNS); got != want {
			t.Errorf("network %s: the result has %s, want %s", network, got, want)
		}
		must(t, w.del(lan, s.conf(network)))
	}
}
