package admin

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// TestCheckAnnounces checks that a VLAN that exists without GVRP or MVRP is refused for a network that
// announces it, and no other.
func TestCheckAnnounces(t *testing.T) {
	for name, c := range map[string]struct {
		def  network.Definition
		p    link.Parent
		want string
	}{
		"not created yet": {def: network.Definition{GVRP: true, MVRP: true}},
		"not announced":   {p: link.Parent{Index: 7, GVRP: true}},
		"announced by both": {def: network.Definition{GVRP: true, MVRP: true},
			p: link.Parent{Index: 7, GVRP: true, MVRP: true}},
		"without GVRP": {def: network.Definition{GVRP: true}, p: link.Parent{Name: "eth0.5", Index: 7},
			want: `without gvrp: run "ip link set dev eth0.5 type vlan gvrp on"`},
		"without MVRP": {def: network.Definition{GVRP: true, MVRP: true}, p: link.Parent{Index: 7, GVRP: true},
			want: "without mvrp"},
	} {
		err := checkAnnounces(&c.def, c.p)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
