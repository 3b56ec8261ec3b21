//go:build vm

package attach_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// fault is a real fault, and the verdict that it must cause.
type fault struct {
	name  string
	code  verify.Code
	words []string // in the verdict's sentence
	// unplug causes the fault before the trunk is watched: otherwise a gateway's MLD
	// reports when it comes up would show that its VLAN is alive.
	unplug func(w *world, gw *testenv.Station)
	// make causes the fault before the container starts; nil if unplug is enough.
	make func(t *testing.T, w *world, gw *testenv.Station)
	// check checks the evidence.
	check func(hook.Attachment) bool
	fatal bool // fatal in mode warn too
	ip    string
}

// redirect sends frames that leave by one link of the host out of another one, as a
// foreign tc filter might.
func redirect(t *testing.T, w *world, from, to string) {
	t.Helper()
	tc(t, w, from, "action", "mirred", "egress", "redirect", "dev", to)
}

func tc(t *testing.T, w *world, dev string, action ...string) {
	t.Helper()
	_, err := w.Host.Exec("tc", "qdisc", "add", "dev", dev, "clsact")
	must(t, err)
	_, err = w.Host.Exec("tc", append([]string{"filter", "add", "dev", dev, "egress", "protocol", "all", "prio", "1",
		"matchall"}, action...)...)
	must(t, err)
}

// hello makes a station send a frame that the trunk program sees, so that its VLAN is
// alive.
func hello(t *testing.T, s *testenv.Station) {
	t.Helper()
	s.AddAddr("192.168.50.99/24")
	// No station answers: the broadcast request is enough.
	if _, err := s.Exec("ping", "-n", "-c1", "-W1", "192.168.50.98"); err == nil {
		t.Fatal("a host that is not there answers")
	}
}

var faults = []fault{
	{
		name: "none", code: verify.OK, words: []string{"VLAN 50"},
		check: func(a hook.Attachment) bool {
			g := a.Evidence.Gateways[0]
			return g.Asked.Tags.Equal(a.Endpoint.Tags) && g.Reply.Tags.Equal(a.Endpoint.Tags) && g.Reply.At >= g.Asked.At &&
				a.Verdict.RTT == g.Reply.At.Sub(g.Asked.At)
		},
	},
	{
		name: "gateway's port moved to VLAN 60", code: verify.VLANSilent,
		words:  []string{"check that the switch port carries VLAN 50"},
		unplug: func(_ *world, gw *testenv.Station) { gw.MoveToVLAN(60) },
		check: func(a hook.Attachment) bool {
			return a.Evidence.Gateways[0].Asked.Count > 0 && a.Evidence.Gateways[0].Reply.Count == 0
		},
	},
	{
		name: "VLAN off the trunk, another alive", code: verify.VLANSilent, words: []string{"VLAN 50", "heard: VLAN 60"},
		unplug: func(w *world, _ *testenv.Station) { w.TakeOffTrunk(50) },
		make:   func(t *testing.T, w *world, _ *testenv.Station) { hello(t, w.AddGateway(60)) },
	},
	{
		name: "gateway has no address, VLAN alive", code: verify.GatewaySilent, words: []string{"though VLAN 50 is alive"},
		make: func(t *testing.T, w *world, gw *testenv.Station) {
			gw.RemoveAddr("192.168.50.1/24")
			gw.RemoveAddr("fd50::1/64")
			hello(t, gw)
		},
	},
	{
		name: "trunk's switch port down", code: verify.ParentDown, words: []string{"eth9", "carrier"},
		make: func(t *testing.T, w *world, _ *testenv.Station) {
			w.SetTrunk(false)
			w.waitNoCarrier(t)
		},
	},
	{
		name: "a filter sends frames out of the trunk without a tag", code: verify.Untagged, fatal: true,
		words: []string{"untagged", "not VLAN 50"},
		make:  func(t *testing.T, w *world, _ *testenv.Station) { redirect(t, w, "eth9.50", "eth9") },
		check: func(a hook.Attachment) bool {
			return len(a.Evidence.Gateways[0].Asked.Tags) == 0 && a.Evidence.Counters.Dropped > 0
		},
	},
	{
		name: "a filter sends frames out of another VLAN", code: verify.WrongVLAN, fatal: true,
		words: []string{"VLAN 60, not VLAN 50"},
		make: func(t *testing.T, w *world, _ *testenv.Station) {
			_, err := w.Host.Exec("ip", "link", "add", "link", "eth9", "name", "eth9.60", "up", "type", "vlan", "id", "60")
			must(t, err)
			redirect(t, w, "eth9.50", "eth9.60")
		},
	},
	{
		name: "a filter pushes a second tag", code: verify.UnexpectedTag, fatal: true,
		words: []string{"VLAN 50.99, not VLAN 50"},
		make: func(t *testing.T, w *world, _ *testenv.Station) {
			tc(t, w, "eth9.50", "action", "vlan", "push", "id", "99")
		},
	},
	{
		name: "a filter drops frames", code: verify.NotSent, words: []string{`"eth9.50"`, "tc filter"},
		make: func(t *testing.T, w *world, _ *testenv.Station) { tc(t, w, "eth9.50", "action", "drop") },
	},
	{
		name: "another host has the address", code: verify.AddressConflict, fatal: true, ip: "192.168.50.77",
		words: []string{"192.168.50.77", "0a:00:00:32:00:02"},
		make:  func(_ *testing.T, w *world, _ *testenv.Station) { w.AddClaimant(50, "192.168.50.77/24", "fd50::77/64") },
	},
}

// TestVerdicts causes every verdict of the table by a real fault on a real VLAN, from the
// state on stdin to the hook's output, with gateways of both families in turn. The matrix
// has every fault with each family.
func TestVerdicts(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	for i, f := range faults {
		subnet := []string{"192.168.50.0/24", "fd50::/64"}[i%2]
		t.Run(f.name+", "+subnet, func(t *testing.T) { testVerdict(t, f, subnet) })
	}
}

func testVerdict(t *testing.T, f fault, subnet string) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	gw := w.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
	before := w.Links(w.Host)
	if f.unplug != nil {
		f.unplug(w, gw)
	}
	w.Define("web", "eth9.50", func(d *network.Definition) {
		d.Deadline = network.Duration(500 * time.Millisecond)
		d.ConflictWindow = network.Duration(250 * time.Millisecond) // a claimant may be slow here
	}, subnet)
	if f.make != nil {
		f.make(t, w, gw)
	}
	annotations := []string{"network=web"}
	f.words = slices.Clone(f.words) // both families use these words
	if f.ip != "" {
		key, ip := "ip=", f.ip
		if strings.Contains(subnet, ":") {
			key, ip = "ip6=", "fd50::77"
			for i := range f.words {
				f.words[i] = strings.Replace(f.words[i], f.ip, ip, 1)
			}
		}
		annotations = append(annotations, key+ip)
	}

	// Mode strict refuses every verdict that is not good, and leaves nothing.
	c := testenv.NewContainer(t)
	strict := w.Attach("strict", c, append(annotations, "verify=strict")...)
	if f.code.Good() {
		if strict.Status != 0 {
			t.Fatalf("strict: %+v", strict)
		}
	} else {
		w.Refused("strict", strict, 1, append(f.words, string(f.code))...)
	}
	w.DetachAndEnd("strict", c)
	if n := len(w.Records()) + w.Watched() + w.Held("web"); n != 0 {
		t.Errorf("%d records, endpoints or leases are left", n)
	}

	// Mode warn starts the container, unless it would harm other machines.
	c = testenv.NewContainer(t)
	warn := w.Attach("warn", c, annotations...)
	if f.fatal {
		w.Refused("warn", warn, 1, append(f.words, string(f.code))...)
	} else {
		if warn.Status != 0 {
			t.Fatalf("warn: %+v", warn)
		}
		a := w.Record()
		if a.Verdict.Code != f.code {
			t.Errorf("verdict is %+v, want %q", a.Verdict, f.code)
		}
		for _, word := range f.words {
			if !strings.Contains(a.Verdict.Text, word) {
				t.Errorf("verdict says %q, want %q in it", a.Verdict.Text, word)
			}
		}
		if f.check != nil && !f.check(a) {
			t.Errorf("evidence is %+v", a.Evidence)
		}
	}
	w.DetachAndEnd("warn", c)
	w.RemoveNetwork("web")
	if f.code == verify.OK {
		if after := w.Links(w.Host); strings.Join(after, " ") != strings.Join(before, " ") {
			t.Errorf("links of the host are %q, were %q", after, before)
		}
	}
}
