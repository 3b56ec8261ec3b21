package link

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// TestGroup checks that a new link of the host is in the group that the udev rule tests. The alias is set
// later than udev may look at the link.
func TestGroup(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	mac := ether.MAC{0x02, 0, 0, 0, 0, 0x77}
	_, _, err := h.EnsureHostLink(context.Background(), HostLinkSpec{Name: "ly-123456789abc", Parent: p, MAC: mac})
	must(t, err)
	if got := mustLink(t, h, "ly-123456789abc").Attrs().Group; got != group {
		t.Errorf("the link is in group %d, want %d", got, group)
	}
	rules, err := os.ReadFile("../../packaging/udev/95-lanyard.rules")
	must(t, err)
	if want := fmt.Sprintf(`ATTR{netdev_group}!="%d"`, group); !strings.Contains(string(rules), want) {
		t.Errorf("the rule lacks %s: %s", want, rules)
	}
}
