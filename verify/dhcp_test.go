package verify

import (
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// TestJudgeLease goes through the table for a start without a lease.
func TestJudgeLease(t *testing.T) {
	const second = Instant(time.Second)
	facts := Facts{
		Parent: "eth0.50", Trunk: "eth0", Tags: ether.Tags{{TPID: 0x8100, VID: 50}}, Asked: 100 * second, Now: 106 * second,
		Local: func(ether.MAC) bool { return false },
	}
	heard := func(vid uint16, at Instant) []VLANSeen { return []VLANSeen{{VID: vid, At: at, Frames: 1}} }
	port := func() string { return "port 7 carries 60" }
	none := NoLease{Protocol: "DHCP", Sent: 3, Waited: 6 * time.Second, Seen: &Counters{OutFrames: 3}}
	for _, c := range []struct {
		code Code
		edit func(*Facts, *NoLease)
		want []string
	}{
		{ParentDown, func(f *Facts, n *NoLease) { f.Down, n.Outside = "no carrier", "x" }, []string{"no carrier"}},
		{DHCPWrongVLAN, func(_ *Facts, n *NoLease) { n.Outside, n.Seen = "DHCP server 10.0.0.1: offers 10.0.0.9", nil },
			[]string{"DHCP server 10.0.0.1", `"eth0.50" leads`}},
		{DHCPSilent, func(f *Facts, n *NoLease) { f.Unwatched, n.Seen = "no BPF", nil },
			[]string{"3 requests within 6s", "no BPF"}},
		{WrongVLAN, func(_ *Facts, n *NoLease) { n.Seen = &Counters{OutWrong: 3} }, []string{"other tags than VLAN 50"}},
		{NotSent, func(_ *Facts, n *NoLease) { n.Seen = &Counters{} }, []string{"reached trunk \"eth0\"", "drops it"}},
		{DHCPWrongVLAN, func(f *Facts, n *NoLease) { f.VLANs, n.Seen.InWrong = heard(0, 101*second), 1 },
			[]string{"left as VLAN 50 and answers arrived on untagged", "native VLAN"}},
		{DHCPWrongVLAN, func(f *Facts, n *NoLease) { f.VLANs, n.Seen.InWrong = heard(60, 99*second), 1 },
			[]string{"answers arrived on another VLAN"}},
		{DHCPSilent, func(f *Facts, _ *NoLease) { f.VLANs, f.Port = heard(60, 99*second), port },
			[]string{"no frame of another station", "heard: VLAN 60", "the switch port carries VLAN 50: port 7 carries 60"}},
		{DHCPSilent, func(f *Facts, _ *NoLease) { f.VLANs, f.Port = heard(50, 97*second), port },
			[]string{"relay, and that the switch port still carries VLAN 50, last heard 9s ago: port 7 carries 60"}},
		{DHCPSilent, func(f *Facts, _ *NoLease) { f.VLANs = heard(50, 99*second) }, []string{"though it is alive", "relay"}},
		{DHCPSilent, func(f *Facts, n *NoLease) {
			n.Protocol, n.Routers, f.VLANs = "DHCPv6", "router fe80::1 names such servers by its M flag", heard(50, 99*second)
		}, []string{"no DHCPv6 server answered 3 requests within 6s (router fe80::1 names such", "check the DHCPv6 server"}},
	} {
		f, n, seen := facts, none, *none.Seen
		n.Seen = &seen
		c.edit(&f, &n)
		got := JudgeLease(f, n)
		for _, want := range c.want {
			if !strings.Contains(got.Text, want) {
				t.Errorf("%s: got %q, want %q", c.code, got.Text, want)
			}
		}
		if got.Code != c.code || strings.Contains(got.Text, "%!") {
			t.Errorf("got %s: %s, want %s", got.Code, got.Text, c.code)
		}
	}
}
