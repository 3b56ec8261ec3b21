//go:build vm

package attach_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

func (w *world) waitNoCarrier(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "the trunk to lose its carrier", func() error {
		l, err := w.Host.Netlink().LinkByName(w.Trunk)
		if err == nil && l.Attrs().OperState == netlink.OperUp {
			err = errors.New("it is up")
		}
		return err
	})
}

// TestVLANParent checks that the sub-interface is created and removed with the network,
// and that an existing one stays.
func TestVLANParent(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	before := w.Links(w.Host)
	_, err := w.Host.Exec("ip", "link", "add", "link", "eth9", "name", "eth9.60", "up", "type", "vlan", "id", "60")
	must(t, err)
	w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	w.Define("db", "eth9.60", nil, "192.168.60.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")

	// After a reboot it does not exist: the attach creates it again.
	w.DetachAndEnd("c1", c)
	_, err = w.Host.Exec("ip", "link", "del", "eth9.50")
	must(t, err)
	c = testenv.NewContainer(t)
	w.MustAttach("c2", c, "network=web")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	w.DetachAndEnd("c2", c)

	w.RemoveNetwork("web")
	w.RemoveNetwork("db")
	after := strings.Join(w.Links(w.Host), " ")
	if want := strings.Join(append(before[:1:1], append([]string{"eth9.60"}, before[1:]...)...), " "); after != want {
		t.Errorf("links are %q, want %q", after, want)
	}
}

// TestVLANParentForeign checks that a link with the right name that is not that VLAN is
// refused and not changed.
func TestVLANParentForeign(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	_, err := w.Host.Exec("ip", "link", "add", "link", "eth9", "name", "eth9.50", "up", "type", "vlan", "id", "60")
	must(t, err)
	if err := w.TryDefine("web", "eth9.50", nil, "192.168.50.0/24"); err == nil ||
		!strings.Contains(err.Error(), `is VLAN 60 on "eth9"`) {
		t.Errorf("got %v", err)
	}
}

// TestSameSubnetOnTwoVLANs checks that the same subnet on two VLANs of one trunk gives
// different MACs.
func TestSameSubnetOnTwoVLANs(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	w.AddGateway(60, "192.168.50.1/24")
	w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	w.Define("db", "eth9.60", nil, "192.168.50.0/24")
	for _, name := range []string{"web", "db"} {
		c := testenv.NewContainer(t)
		w.MustAttach(name, c, "network="+name, "ip=192.168.50.9")
		hooklab.Pings(t, c.Namespace, "192.168.50.1")
	}
	recs := w.Records()
	if len(recs) != 2 || recs[0].MAC == recs[1].MAC || recs[0].Verdict.Code != verify.OK ||
		recs[1].Verdict.Code != verify.OK {
		t.Errorf("records are %+v", recs)
	}
}

// TestNoVLANHopping checks that a container that sends its own VLAN tags does not reach
// another VLAN.
func TestNoVLANHopping(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(0, "192.0.2.1/24")
	victim := w.AddGateway(50, "192.168.50.1/24")
	w.Define("plain", "eth9", func(d *network.Definition) { d.Verify = verify.Warn }, "192.0.2.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=plain")
	hooklab.Pings(t, c.Namespace, "192.0.2.1")
	for _, args := range []string{
		"link add link eth0 name eth0.50 type vlan id 50",
		"link set eth0.50 up",
		"addr add 192.168.50.66/24 dev eth0.50",
	} {
		_, err := c.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	if out, err := c.Exec("ping", "-n", "-c1", "-W1", "192.168.50.1"); err == nil {
		t.Errorf("the container reached VLAN 50: %s", out)
	}
	out, err := victim.Exec("ip", "neigh", "show", "192.168.50.66")
	must(t, err)
	if strings.Contains(out, "lladdr") {
		t.Errorf("the victim has heard of it: %s", out)
	}
	if n := w.Evidence(w.Record()).Counters; n.Dropped == 0 || n.OutWrong < n.Dropped {
		t.Errorf("the drops were not counted: %+v", n)
	}
}

func TestKilledVLAN(t *testing.T) {
	for _, step := range []string{"intent", "parent", "link", "address"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
			w.AddGateway(50, "192.168.50.1/24")
			before := w.Links(w.Host)
			w.Define("web", "eth9.50", nil, "192.168.50.0/24")
			_, err := w.Host.Exec("ip", "link", "del", "eth9.50") // the attach has to create it
			must(t, err)
			c := testenv.NewContainer(t)
			kill(t, w, c, step)
			must(t, c.Kill())
			c.End(t)
			sweep(t, w)
			w.RemoveNetwork("web")
			if after := w.Links(w.Host); strings.Join(after, " ") != strings.Join(before, " ") {
				t.Errorf("links are %q, were %q", after, before)
			}
			if n := w.Watched(); n != 0 {
				t.Errorf("%d endpoints are left", n)
			}
		})
	}
}

// TestTrunkSetDown sets the trunk down below a sub-interface of Lanyard's, which the kernel then sets
// down, too. A start is judged as on an untagged network, and everything works when the trunk is
// up again.
func TestTrunkSetDown(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	for _, missing := range []bool{false, true} {
		hooklab.IP(t, w.Host, "link set eth9 down")
		if missing {
			hooklab.IP(t, w.Host, "link del eth9.50")
		}
		c := testenv.NewContainer(t)
		if missing {
			w.Refused("no sub-interface", w.Attach("c1", c, "network=web"), 1, `"eth9" is down`, "ip link set eth9 up")
			hooklab.IP(t, w.Host, "link set eth9 up")
			w.MustAttach("c1", c, "network=web")
		} else {
			w.Refused("strict", w.Attach("c1", c, "network=web", "verify=strict"), 1, "parent-down", `"eth9" is down`)
			w.MustAttach("c1", c, "network=web")
			if a := w.Record(); a.Verdict.Code != verify.ParentDown {
				t.Errorf("verdict is %+v", a.Verdict)
			}
			hooklab.IP(t, w.Host, "link set eth9 up")
		}
		hooklab.Pings(t, c.Namespace, "192.168.50.1")
		for _, v := range w.verdicts() {
			if v.Code != verify.OK {
				t.Errorf("when the trunk is up again: %+v", v)
			}
		}
		w.DetachAndEnd("c1", c)
	}
}
