//go:build vm

package main

import (
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// TestDHCPVLAN checks that a container on a VLAN gets a lease, and the verdicts if the switch port does
// not carry the VLAN, or if the answers come back without its tag.
func TestDHCPVLAN(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	b := newBrokered(t, testenv.Config{VLANs: []uint16{50, 60}})
	gw := b.AddGateway(50, "192.168.50.1/24")
	dnsmasq(gw)
	b.Define("web", b.Trunk+".50", func(d *network.Definition) {
		d.IPAM, d.Managed, d.Deadline = network.IPAMDHCP, true, network.Duration(2*time.Second)
	})
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	if r := b.Record(); r.Verdict.Code != "ok" || r.Addrs[0].Masked() != mustPrefix("192.168.50.0/24") {
		t.Errorf("the container has %v, verdict %v", r.Addrs, r.Verdict)
	}
	b.DetachAndEnd("c1", c)
	c = testenv.NewContainer(t)
	b.TakeOffTrunk(50)
	b.Refused("a VLAN that the port does not carry", b.Attach("c1", c, "network=web"), 1, "dhcp-silent: no DHCP server answered",
		"VLAN 50 of", "switch port")
	b.PutOnTrunk(50)
	b.SetNative(50)
	b.Refused("answers without a tag", b.Attach("c1", c, "network=web"), 1, "dhcp-wrong-vlan: requests to DHCP servers left",
		"as VLAN 50 and answers arrived on untagged", "native VLAN")
	b.WantNothing("web", before)
}
