//go:build failpoint

package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

// TestDHCPKilled checks that nothing is left of an attach that was killed after the server's answer,
// and that the next one gets the same lease.
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
	b.MustAttach("c1", c, "network=web")
	if ack := "DHCPACK(eth0) " + b.Record().Addrs[0].Addr().String(); strings.Count(d.Log(), ack) != 2 {
		t.Errorf("not one address for both attaches: %s", d.Log())
	}
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
}
