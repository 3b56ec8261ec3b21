//go:build vm

package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestVLAN takes one of two VLANs off the switch's port: only that one is bad on the page, and works
// again when it is back.
func TestVLAN(t *testing.T) {
	w := lab{Lab: hooklab.New(t, testenv.Config{VLANs: []uint16{50, 60}})}
	for vid := 50; vid <= 60; vid += 10 {
		network, subnet := fmt.Sprintf("web%d", vid), fmt.Sprintf("192.168.%d.", vid)
		w.AddGateway(uint16(vid), subnet+"1/24")
		w.Define(network, fmt.Sprintf("%s.%d", w.Trunk, vid), nil, subnet+"0/24")
		w.MustAttach(fmt.Sprintf("c%d", vid), testenv.NewContainer(t), "network="+network)
	}
	w.service = w.StartService()
	// state returns the classes of the two VLANs.
	state := func(page string) (classes []string) {
		for _, part := range strings.Split(page, `class="parent `)[1:] {
			class, _, _ := strings.Cut(part, `"`)
			classes = append(classes, class)
		}
		return classes
	}
	eventually := func(want string) {
		t.Helper()
		testenv.Eventually(t, "VLANs "+want, func() error {
			if page := w.get(t, "/"); fmt.Sprint(state(page)) != want {
				return fmt.Errorf("VLANs are %v in %s", state(page), page)
			}
			return nil
		})
	}
	eventually("[good good]")
	w.TakeOffTrunk(60)
	eventually("[good bad]")
	wants(t, w.get(t, "/?q=c60"), "VLAN 60", "192.168.60.1 did not answer", "0 of 1 containers work",
		"1 of 2 containers work")
	w.PutOnTrunk(60)
	eventually("[good good]")
}
