//go:build vm

package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify/lldp"
)

// TestDHCPVLAN checks that real containers on a VLAN get a lease and its name server, and the verdicts
// if the switch port does not carry the VLAN, or if the answers come back without its tag.
//
// Row: addresses from the LAN's DHCP servers
// Row: IPv6 addresses from DHCPv6 servers
func TestDHCPVLAN(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	b := newBrokered(t, testenv.Config{VLANs: []uint16{50, 60}})
	gw := b.AddGateway(50, "192.168.50.1/24", "fd78::1/64")
	gw.ServeDHCP("192.168.50.100,192.168.50.150,120", "--dhcp-option=6,192.168.50.5",
		"--dhcp-range=fd78::100,fd78::1ff,64,120")
	gw.ServeRadvd(managed)
	for name, vlan := range map[string]string{"web": ".50", "db": ".60"} {
		b.Define(name, b.Trunk+vlan, func(d *network.Definition) {
			d.IPAM, d.Managed, d.Deadline = network.IPAMDHCP, true, network.Duration(2*time.Second)
		})
	}
	b.Define("six", b.Trunk+".50", func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.ShareParent, d.Managed = network.IPAMNone, network.IPv6DHCP, true, true
		d.Deadline = network.Duration(20 * time.Second)
	})
	before := b.Links(b.Host)
	dir, err := os.MkdirTemp("", "engine")
	must(t, err)
	t.Cleanup(func() { testenv.RemoveAll(t, dir) })
	e := &engine{t: t, w: b.world, dir: dir}
	for _, runtime := range []string{"runc", "crun"} {
		hooks := e.hooks("createRuntime", "createContainer")
		bundle, root, id := e.bundle(runtime+"1", hooks, "network=web"), dir+"/state-"+runtime, runtime+"1"
		t.Cleanup(func() { e.run(runtime, "--root", root, "delete", "--force", id) })
		e.must(runtime, "--root", root, "run", "--detach", "--bundle", bundle, id)
		r := b.Record()
		if r.Verdict.Code != "ok" || r.Addrs[0].Masked() != mustPrefix("192.168.50.0/24") {
			t.Errorf("%s: the container has %v, verdict %v", runtime, r.Addrs, r.Verdict)
		}
		inside := e.must(runtime, "--root", root, "exec", id, "sh", "-c", "ip addr show eth0; cat /etc/resolv.conf")
		for _, want := range []string{r.Addrs[0].String(), "nameserver 192.168.50.5\n"} {
			if !strings.Contains(inside, want) {
				t.Errorf("%s: inside is %s, want %s", runtime, inside, want)
			}
		}
		e.must(runtime, "--root", root, "delete", "--force", id)
	}
	bundle, root := e.bundle("six", e.hooks("createRuntime"), "network=six"), dir+"/state-six"
	t.Cleanup(func() { e.run("runc", "--root", root, "delete", "--force", "six") })
	e.must("runc", "--root", root, "run", "--detach", "--bundle", bundle, "six")
	r, inside := b.Record(), e.must("runc", "--root", root, "exec", "six", "ip", "-6", "addr", "show", "eth0")
	if r.DHCP6 == nil || r.DHCP6.Addr.Masked() != mustPrefix("fd78::/64") || r.Verdict.Code != "ok" ||
		!strings.Contains(r.Verdict.Text, "on VLAN 50 of") || !strings.Contains(inside, " "+r.DHCP6.Addr.String()) {
		t.Errorf("the container has %v, verdict %v: %s", r.Addrs, r.Verdict, inside)
	}
	e.must("runc", "--root", root, "delete", "--force", "six")
	c := testenv.NewContainer(t)
	b.TakeOffTrunk(60)
	b.hearSwitch()
	b.Refused("a VLAN that the port does not carry", b.Attach("c1", c, "network=db"), 1,
		"dhcp-silent: no DHCP server answered", "that the switch port carries VLAN 60: port \"Gi1/0/7\" of switch \"sw-a\" "+
			"carries VLANs 1, 50, and not 60: add it there (heard ")
	b.SetNative(50)
	b.Refused("answers without a tag", b.Attach("c1", c, "network=web"), 1,
		"dhcp-wrong-vlan: requests to DHCP servers left", "as VLAN 50 and answers arrived on untagged", "native VLAN")
	b.WantNothing("web", before)
}

// hearSwitch keeps what a frame of the switch says of the trunk's port, as "lanyard lldp" does. Then the
// switch is silent: its frames show that the link works.
func (b *brokered) hearSwitch() {
	b.tb.Helper()
	defer b.SpeakLLDP("configure system hostname sw-a", "configure lldp portidsubtype local Gi1/0/7")()
	must(b.tb, b.Host.Do(func() error {
		trunk, err := net.InterfaceByName(b.Trunk)
		if err != nil {
			return err
		}
		n, err := lldp.Listen(b.tb.Context(), trunk.Index, lldp.Interval)
		if err != nil {
			return err
		}
		return wiring.PathsUnder(b.Root).Switches().Save(b.Trunk, *n)
	}))
}
