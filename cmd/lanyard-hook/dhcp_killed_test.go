//go:build failpoint

package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestDHCPKilled checks that nothing is left of an attach that was killed after the server's answer:
// the server has the lease back. The next attach gets the same one.
func TestDHCPKilled(t *testing.T) {
	b, _, d := lanDHCP(t, dnsmasq)
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.stop()
	b.start("LANYARD_FAILPOINT=dhcp")
	if o := b.Attach("c1", c, "network=web"); o.Status != 1 || !strings.Contains(o.Stderr, "only the service renews") {
		t.Errorf("the hook goes on without the service: %+v", o)
	}
	b.cmd.Wait() // "signal: killed"
	b.start()
	b.WantNothing("web", before)
	d.WantLog("DHCPRELEASE(eth0) 192.168.50.")
	b.MustAttach("c1", c, "network=web")
	if ack := "DHCPACK(eth0) " + b.Record().Addrs[0].Addr().String(); strings.Count(d.Log(), ack) != 2 {
		t.Errorf("not one address for both attaches: %s", d.Log())
	}
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
}

// TestDHCPKilledAtReplacement checks that the server has a lease back that it gave to a running container
// just before the service was killed.
func TestDHCPKilledAtReplacement(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	b.stop()
	d.Stop()
	d = gw.ServeDHCP("192.168.50.200,192.168.50.210,120") // ends the lease, and gives another
	b.startOnly("LANYARD_FAILPOINT=dhcp")
	b.cmd.Wait() // "signal: killed"
	a := b.Record().DHCP
	if a.Lost == "" || a.Returned || a.Addr.Addr().As4()[3] < 200 {
		t.Errorf("the recorded lease is %+v", a)
	}
	d.WantLog("DHCPACK(eth0) " + a.Addr.Addr().String())
	must(t, c.Kill())
	b.start()
	d.WantLog("DHCPRELEASE(eth0) " + a.Addr.Addr().String())
}

// TestDHCP6Killed is TestDHCPKilled for DHCPv6, with the same address for both attaches.
func TestDHCP6Killed(t *testing.T) {
	b, _, d := lanDHCP6(t, dnsmasq6)
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.stop()
	b.start("LANYARD_FAILPOINT=dhcp")
	b.Attach("c1", c, "network=web")
	b.cmd.Wait() // "signal: killed"
	b.start()
	b.WantNothing("web", before)
	d.WantLog("DHCPRELEASE(eth0) 00:03:00:01:")
	b.MustAttach("c1", c, "network=web")
	if _, addr := b.lease6(c); strings.Count(d.Log(), "DHCPREPLY(eth0) "+addr) != 2 {
		t.Errorf("not one address for both attaches: %s", d.Log())
	}
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
}
