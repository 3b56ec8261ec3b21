//go:build vm

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestSLAACVLAN checks that the first process of real containers on a VLAN has an address and
// a name server from the VLAN's router, and the verdict if the switch port does not carry the VLAN.
//
// Row: IPv6 addresses from router advertisements
// Row: name servers from router advertisements
// Row: stable-privacy addresses (RFC 7217)
func TestSLAACVLAN(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	gw := w.AddGateway(50, "192.168.50.1/24", "fd77::1/64")
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { }; RDNSS fd77::53 { AdvRDNSSLifetime 600; }; " +
		"DNSSL lab.example { AdvDNSSLLifetime 600; };")
	w.Define("web", w.Trunk+".50", func(d *network.Definition) {
		d.IPv6Mode, d.Managed, d.Deadline = network.IPv6SLAAC, true, network.Duration(20*time.Second)
	}, "192.168.50.0/24")
	w.Define("private", w.Trunk+".50", func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.ShareParent, d.Managed = network.IPAMNone, network.IPv6SLAAC, true, true
		d.IPv6Addresses, d.Deadline = network.IPv6StablePrivacy, network.Duration(20*time.Second)
	})
	w.Define("db", w.Trunk+".60", func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.Managed = network.IPAMNone, network.IPv6SLAAC, true
	})
	before := w.Links(w.Host)
	dir, err := os.MkdirTemp("", "engine")
	must(t, err)
	t.Cleanup(func() { testenv.RemoveAll(t, dir) })
	e := &engine{t: t, w: w, dir: dir}
	for _, runtime := range []string{"runc", "crun"} {
		root, id := dir+"/state-"+runtime, runtime+"1"
		bundle := e.bundle(id, e.hooks("createRuntime", "createContainer"), "network=web")
		t.Cleanup(func() { e.run(runtime, "--root", root, "delete", "--force", id) })
		e.must(runtime, "--root", root, "run", "--detach", "--bundle", bundle, id)
		r := w.Record()
		if len(r.Verdicts) != 2 || r.Verdict.Code != verify.OK || !strings.Contains(r.Verdicts[1].Text, "on VLAN 50 of") {
			t.Errorf("%s: the verdicts are %v", runtime, r.Verdicts)
		}
		inside := e.must(runtime, "--root", root, "exec", id, "sh", "-c",
			"ip addr show dev eth0 scope global; cat /etc/resolv.conf")
		if !strings.Contains(inside, " fd77::") || strings.Contains(inside, "tentative") ||
			!strings.Contains(inside, "search lab.example\nnameserver fd77::53\n") {
			t.Errorf("%s: inside is %s", runtime, inside)
		}
		e.must(runtime, "--root", root, "delete", "--force", id)
	}
	bundle, root := e.bundle("private", e.hooks("createRuntime"), "network=private"), dir+"/state-private"
	t.Cleanup(func() { e.run("runc", "--root", root, "delete", "--force", "private") })
	e.must("runc", "--root", root, "run", "--detach", "--bundle", bundle, "private")
	inside := e.must("runc", "--root", root, "exec", "private", "ip", "addr", "show", "dev", "eth0", "scope", "global")
	if !strings.Contains(inside, " fd77::") || strings.Contains(inside, "ff:fe") || w.Record().Verdict.Code != verify.OK {
		t.Errorf("stable-privacy: inside is %s, the record %+v", inside, w.Record())
	}
	e.must("runc", "--root", root, "delete", "--force", "private")
	c := testenv.NewContainer(t)
	w.TakeOffTrunk(60)
	w.Refused("a VLAN that the port does not carry", w.Attach("c1", c, "network=db", "verify=strict"), 1,
		"no-router: no router advertised itself (RA)", "on VLAN 60 of", "switch port")
	w.WantNothing("web", before)
}
