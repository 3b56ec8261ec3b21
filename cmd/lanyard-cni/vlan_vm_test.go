//go:build vm

package main

import (
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestVLAN checks an ADD on VLAN 50: the tags are seen on the trunk, the interface is created again after
// the sub-interface was deleted, CHECK finds a switch port in another VLAN, and after DEL and "network rm"
// nothing is left.
func TestVLAN(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	gw := w.AddGateway(50, "192.168.50.1/24")
	before := w.Links(w.Host)
	w.Define("web50", "eth9.50", func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	lan, s := w.list("lan", plugin("web50")), newSandbox(t)
	w.mustAdd(lan, s.conf("c1"))
	a := w.Records()[0]
	if a.Verdict.Code != verify.OK || len(a.Endpoint.Tags) != 1 || a.Evidence == nil || a.Evidence.Counters.OutWrong > 0 {
		t.Errorf("the record is %+v", a)
	}
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	must(t, w.status(lan))
	must(t, w.check(lan, s.conf("c1")))
	hooklab.IP(t, w.Host, "link del eth9.50")
	w.sweep()
	w.reattach(a)
	w.sweep()
	must(t, w.check(lan, s.conf("c1")))
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	gw.MoveToVLAN(60)
	refused(t, "the gateway's port is in VLAN 60", w.check(lan, s.conf("c1")), errVerdict, "192.168.50.1")
	_, err := w.add(lan, newSandbox(t).conf("c2"))
	refused(t, "an ADD then", err, errVerdict, `network "web50"`)
	must(t, w.gc(lan))
	w.wantNothing("web50")
	w.RemoveNetwork("web50")
	if now := w.Links(w.Host); !slices.Equal(now, before) {
		t.Errorf("links of the host: %q, want %q", now, before)
	}
}
