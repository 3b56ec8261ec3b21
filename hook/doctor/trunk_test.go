package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
)

// TestTrunk checks what the facts of a trunk mean where a test has no such card. The scripts of
// cmd/lanyard make all other facts for real.
func TestTrunk(t *testing.T) {
	macvlan := []*network.Definition{{Name: "web", Driver: network.DriverMacvlan}}
	for name, c := range map[string]struct {
		facts facts
		want  []string // states and checks, and the beginning of a remedy
	}{
		"a plain card":        {facts: facts{driver: "e1000e"}},
		"a hypervisor's card": {facts: facts{driver: "virtio_net"}, want: []string{"warning hypervisor: allow MAC changes"}},
		"balance-tlb":         {facts: facts{bondMode: "balance-tlb"}, want: []string{"wrong bond: use active-backup"}},
		"external":            {facts: facts{manager: "connected (externally)", networkd: "unmanaged"}},
		"before udev":         {facts: facts{networkd: "pending"}},
		"before networkd":     {facts: facts{networkd: "initialized"}},
	} {
		var r results
		c.facts.name = "eth0"
		c.facts.check(r.about("trunk eth0"), macvlan)
		var got []string
		for _, one := range r.list {
			remedy := one.Text[strings.LastIndex(one.Text, ": ")+2:]
			got = append(got, string(one.State)+" "+one.Check+": "+remedy)
		}
		same := slices.EqualFunc(got, c.want, func(g, w string) bool { return strings.HasPrefix(g, w) })
		if !same {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestManagersOfOurs checks that a manager of a link that Lanyard created causes a warning.
func TestManagersOfOurs(t *testing.T) {
	var r results
	facts{name: "eth0.50", networkd: "configured", networkdBy: "/etc/systemd/network/50-all.network"}.
		checkManagers(r.about("parent eth0.50"), true)
	if len(r.list) != 1 || r.list[0].State != Warning ||
		!strings.Contains(r.list[0].Text, `"eth0.50" (configured by /etc/systemd/network/50-all.network), which Lanyard`) {
		t.Errorf("got %+v", r.list)
	}
}
