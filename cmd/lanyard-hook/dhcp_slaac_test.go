package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
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

// TestDHCPSLAACReplaced checks that another lease leaves in the record what it has of routers.
func TestDHCPSLAACReplaced(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	gw.AddAddr("192.168.50.7/24")
	gw.AddAddr("fd77::1/64")
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	b.Define("both", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.ShareParent = network.IPAMDHCP, network.IPv6SLAAC, true
	})
	c := testenv.NewContainer(t)
	for _, line := range []string{"link add eng type veth peer name eng2", "link set eng up", "link set eng2 up",
		"addr add fd99::2/64 dev eng nodad", "route add default via fd99::1 dev eng metric 100"} {
		hooklab.IP(t, c.Namespace, line)
	}
	b.MustAttach("c1", c, "network=both", "interface=eth0", "verify=strict")
	before := b.Record()
	if len(before.Verdicts) != 2 || len(before.Others) != 1 {
		t.Fatalf("the record has the verdicts %v, and leaves %v", before.Verdicts, before.Others)
	}
	d.Change("routers 192.168.50.1;", "routers 192.168.50.7;")
	testenv.Eventually(t, "another gateway", func() error {
		if r := b.Record(); r.DHCP.Lost != "" || fmt.Sprint(r.Gateways) != "[192.168.50.7]" {
			return fmt.Errorf("the record has %v, lease %+v: %s", r.Gateways, r.DHCP, b.logged())
		}
		return nil
	})
	if r := b.Record(); len(r.Verdicts) != 2 || r.Verdicts[1].Code != verify.OK ||
		!strings.Contains(r.Verdicts[1].Text, "gave fd77::") || !slices.Equal(r.Others, before.Others) {
		t.Errorf("after it, the record has the verdicts %v, and leaves %v", r.Verdicts, r.Others)
	}
	b.DetachAndEnd("c1", c)
}

// TestDHCPSLAACGuarded checks that a guarded container keeps its interface, with the addresses from routers,
// when it gets another lease.
func TestDHCPSLAACGuarded(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	gw.AddAddr("192.168.50.7/24")
	gw.AddAddr("fd77::1/64")
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	b.Define("both", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.ShareParent = network.IPAMDHCP, network.IPv6SLAAC, true
		d.AllowUsers = []string{fmt.Sprint(alice)}
	})
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=both")
	before := b.Record()
	d.Change("routers 192.168.50.1;", "routers 192.168.50.7;")
	testenv.Eventually(t, "another gateway", func() error {
		r := b.Record()
		if r.DHCP.Lost != "" || fmt.Sprint(r.Gateways) != "[192.168.50.7]" || len(r.Verdicts) != 2 ||
			r.Verdicts[1].Code != verify.OK {
			return fmt.Errorf("the record has %v, lease %+v, verdicts %v: %s", r.Gateways, r.DHCP, r.Verdicts, b.logged())
		}
		return nil
	})
	if b.Record().Index != before.Index {
		t.Error("the interface was created again")
	}
	hooklab.Pings(t, c.Namespace, "fd77::1")
}
