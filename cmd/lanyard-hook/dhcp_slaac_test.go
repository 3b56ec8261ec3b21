package main

import (
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// TestDHCPSLAACMTU checks that the MTU of a server does not turn IPv6 off silently.
func TestDHCPSLAACMTU(t *testing.T) {
	b, gw, _ := lanDHCP(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeDHCP("192.168.50.100,192.168.50.150,120", "--dhcp-option=26,576")
	})
	gw.AddAddr("fd77::1/64")
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	slaac := func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.ShareParent = network.IPAMDHCP, network.IPv6SLAAC, true
	}
	b.Define("both", b.Trunk, slaac)
	b.Define("fixed", b.Trunk, func(d *network.Definition) { slaac(d); d.MTU = 1400 })
	c := testenv.NewContainer(t)
	b.Refused("an MTU below that of IPv6", b.Attach("c1", c, "network=both"), 1,
		"DHCP server 192.168.50.1", "offers MTU 576, but IPv6 needs at least 1280")
	b.MustAttach("c1", c, "network=fixed", "verify=strict")
}
