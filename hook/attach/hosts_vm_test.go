//go:build vm

package attach_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// A bond fails over to its other port, by which the switch sends what the container has just sent to
// all by the first: that is neither a duplicate MAC nor a conflict.
func TestBondFailover(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50}})
	w.AddUplink("eth8")
	for _, args := range []string{
		"link add bond0 type bond mode active-backup miimon 10", "link set eth9 down", "link set eth8 down",
		"link set eth9 master bond0", "link set eth8 master bond0", "link set bond0 up",
	} {
		_, err := w.Host.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	w.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
	testenv.Eventually(t, "the bond to have a carrier", func() error {
		l, err := w.Host.Netlink().LinkByName("bond0")
		if err == nil && l.Attrs().OperState.String() != "up" {
			err = fmt.Errorf("bond0 is %s", l.Attrs().OperState)
		}
		return err
	})
	w.Define("web", "bond0.50", nil, "192.168.50.0/24", "fd50::/64")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	for _, nic := range []string{"eth9", "eth8"} {
		_, err := w.Host.Exec("ip", "link", "set", "bond0", "type", "bond", "active_slave", nic)
		must(t, err)
		_, err = c.Exec("ip", "neigh", "flush", "all")
		must(t, err)
		hooklab.Pings(t, c.Namespace, "192.168.50.1")
		hooklab.Pings(t, c.Namespace, "fd50::1")
	}
	for _, v := range w.verdicts() {
		if v.Code != verify.OK {
			t.Errorf("verdict is %+v", v)
		}
	}
	if k := w.events(); k[verify.SameMAC]+k[verify.Conflict] != 0 {
		t.Errorf("events are %v", k)
	}
}
