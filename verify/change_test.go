package verify

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
)

func TestChanges(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	given := Given{
		Name: "eth0", MAC: gwMAC, Addrs: []netip.Prefix{prefix("192.168.50.9/24"), prefix("fd50::9/64")},
		Defaults: []netip.Addr{addr("192.168.50.1"), addr("fd50::1")}, Addressed: true,
		Parent: "eth9", MTU: 1500,
	}
	found := func() Found {
		return Found{
			Exists: true, Up: true, Name: "eth0", MAC: gwMAC, Addrs: slices.Clone(given.Addrs),
			MTU: 1500, ParentMTU: 1500, ParentName: "eth9",
			Defaults: []Default{
				{Via: addr("192.168.50.1"), Interface: "eth0", Own: true}, {Via: addr("fd50::1"), Interface: "eth0", Own: true},
			},
		}
	}
	for _, c := range []struct {
		name string
		edit func(*Given, *Found)
		want []string // code, and a part of the text
	}{
		{"as given", func(*Given, *Found) {}, nil},
		{"the kernel's link-local address",
			func(_ *Given, f *Found) { f.Addrs = append(f.Addrs, prefix("fe80::1/64")) }, nil},
		{"the workload's addresses", func(g *Given, _ *Found) { g.Addrs, g.Addressed, g.Defaults = nil, false, nil }, nil},
		{"the parent's MAC", func(g *Given, f *Found) { g.MAC, f.MAC = ether.MAC{}, ether.MAC{2} }, nil},
		{"other default routes, too", func(_ *Given, f *Found) {
			f.Defaults = append([]Default{{Via: addr("0.0.0.0"), Interface: "tun0"}}, f.Defaults...)
		}, nil},
		{"gone", func(_ *Given, f *Found) { *f = Found{} }, []string{"interface-gone start the container again"}},
		{"its parent removed", func(_ *Given, f *Found) { f.Parent = ParentRemoved },
			[]string{`interface-gone parent "eth9" was removed from this host: add "eth9" again and run "lanyard reattach"`}},
		{"its managed parent removed", func(_ *Given, f *Found) { f.Parent = ParentMissing },
			[]string{`interface-gone run "lanyard reattach", which creates "eth9" again, or start`}},
		{"its parent replaced", func(_ *Given, f *Found) { *f = Found{Parent: ParentReplaced} },
			[]string{`interface-gone was removed from this host and added again: run "lanyard reattach", or start`}},
		{"its parent renamed", func(_ *Given, f *Found) { f.ParentName = "lan9" },
			[]string{` is on parent "eth9", which is now called "lan9": containers of the network cannot start until`}},
		{"the parent's MTU lowered", func(_ *Given, f *Found) { f.MTU, f.ParentMTU = 1400, 1400 },
			[]string{` has MTU 1400 instead of 1500, because that of its parent "eth9" was lowered to 1400`}},
		{"and raised again", func(_ *Given, f *Found) { f.MTU = 1400 },
			[]string{` has MTU 1400 instead of 1500: it was set in the container, ` +
				`or that of parent "eth9" was lower for a time`}},
		{"the parent's MTU raised", func(_ *Given, f *Found) { f.ParentMTU = 9000 },
			[]string{` has MTU 1500, and containers that start now get 9000`}},
		{"the parent's MTU raised, and the network's fixed",
			func(g *Given, f *Found) { g.Fixed, f.ParentMTU = true, 9000 }, nil},
		{"a guarded container's parent lowered", func(_ *Given, f *Found) { f.ParentMTU = 1400 },
			[]string{` has MTU 1500, and its parent "eth9" only 1400: larger frames are dropped`}},
		{"down, and all that follows", func(_ *Given, f *Found) { *f = Found{Exists: true, Name: "eth0", MAC: gwMAC} },
			[]string{"interface-changed was set down"}},
		{"flushed, and its routes", func(_ *Given, f *Found) { f.Addrs, f.Defaults = nil, nil },
			[]string{"interface-changed address 192.168.50.9/24", "interface-changed address fd50::9/64"}},
		{"name and MAC", func(_ *Given, f *Found) { f.Name, f.MAC = "lan\n0", ether.MAC{2} },
			[]string{` renamed to "lan\n0"`, "interface-changed 02:00:00:00:00:00"}},
		{"another prefix length", func(_ *Given, f *Found) { f.Addrs[0] = prefix("192.168.50.9/32") },
			[]string{" not given: 192.168.50.9/32"}},
		{"many addresses", func(_ *Given, f *Found) {
			for i := range 1000 {
				f.Addrs = append(f.Addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
			}
		}, []string{" 10.0.0.0/32, 10.0.0.1/32, 10.0.0.2/32, 10.0.0.3/32, and 996 more"}},
		{"no default route", func(_ *Given, f *Found) { f.Defaults = f.Defaults[:1] },
			[]string{"interface-changed default route through fd50::1"}},
		{"a VPN's default route", func(_ *Given, f *Found) { f.Defaults[0] = Default{addr("0.0.0.0"), "tun0", false} },
			[]string{` leads through interface "tun0"`}},
		{"another gateway", func(_ *Given, f *Found) { f.Defaults[0].Via = addr("192.168.50.254") },
			[]string{" leads through 192.168.50.254 on the same interface"}},
		{"the same gateway on another interface", func(_ *Given, f *Found) { f.Defaults[0].Own = false },
			[]string{" leads through 192.168.50.1 on interface"}},
		{"a route to the host", func(g *Given, _ *Found) { g.Defaults = []netip.Addr{addr("0.0.0.0")} },
			[]string{" has lost its default route: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, f := given, found()
			c.edit(&g, &f)
			got := Changes(g, f)
			if len(got) != len(c.want) {
				t.Fatalf("got %+v, want %q", got, c.want)
			}
			for i, want := range c.want {
				code, text, _ := strings.Cut(want, " ")
				if string(got[i].Code) != code || !strings.Contains(got[i].Text, text) || strings.Contains(got[i].Text, "\n") {
					t.Errorf("got %+v, want %q", got[i], want)
				}
				if got[i].Code != "" && got[i].Code.Good() {
					t.Errorf("%s is good", got[i].Code)
				}
			}
		})
	}
}
