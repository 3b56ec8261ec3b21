package link

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/ether"
)

func TestValidName(t *testing.T) {
	for _, name := range []string{"eth0", "e", "fifteen-bytes-x", "eth0.50", "eth0@x", "ä"} {
		if err := ValidName(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "lo", "all", "default", "a/b", "a:1", "a b", "a\t", "a\nb", "a\vb",
		"eth%d", "a\x00", "sixteen-bytes-xx", strings.Repeat("x", 1<<20)} {
		if err := ValidName(name); err == nil {
			t.Errorf("%.20q is allowed", name)
		} else if len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.20q: not one short line: %v", name, err)
		}
	}
}

func TestParseParent(t *testing.T) {
	for name, want := range map[string]struct {
		base string
		vid  uint16
	}{
		"eth0": {"eth0", 0}, "eth0.1": {"eth0", 1}, "eth0.4094": {"eth0", 4094}, "eth0.100.200": {"eth0.100", 200},
		"br.lan": {"br.lan", 0}, "eth0.": {"eth0.", 0}, ".50": {".50", 0}, "eth0.050": {"eth0.050", 0},
		"eth0.5x": {"eth0.5x", 0},
	} {
		if base, vid, err := ParseParent(name); err != nil || base != want.base || vid != want.vid {
			t.Errorf("%q: %q, %d, %v; want %v", name, base, vid, err, want)
		}
	}
	for name, want := range map[string]string{
		"eth0.0": "VLAN 0 is not between 1 and 4094", "eth0.4095": "VLAN 4095 is not between",
		"eth0.99999999":          "VLAN 99999999 is not",
		strings.Repeat("x", 128): "Linux allows 127", "../eth0.5": "cannot be a link's name", "": "missing",
	} {
		if _, _, err := ParseParent(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", name, err, want)
		}
	}
}

func FuzzParseParent(f *testing.F) {
	for _, seed := range []string{"eth0", "eth0.50", "eth0.100.200", "eth0.0", "eth0.4095", ".", "..", "a/b", "",
		"x.00000000000001"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		base, vid, err := ParseParent(name)
		switch {
		case err != nil:
			return
		case vid == 0 && base != name, vid > 4094, base == "", len(name) > 127, strings.ContainsAny(name, "/ :%\n"):
			t.Errorf("%q: %q, %d", name, base, vid)
		case vid != 0 && !strings.HasPrefix(name, base+"."):
			t.Errorf("%q: %q, %d", name, base, vid)
		}
	})
}

func TestResolveLink(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	l := mustLink(t, h, "trunk").Attrs()
	want := Parent{Name: "trunk", Index: l.Index, MAC: ether.MACOf(l.HardwareAddr), MTU: 1500, Up: true, Trunk: "trunk",
		TrunkIndex: l.Index, Chain: []int{l.Index}}
	if diff := cmp.Diff(want, mustResolve(t, h, "trunk")); diff != "" {
		t.Error(diff)
	}
	p, created, err := h.EnsureParent(context.Background(), ParentSpec{Name: "trunk"}, true)
	if diff := cmp.Diff(want, p); diff != "" || created || err != nil {
		t.Errorf("%v, %v: %s", created, err, diff)
	}
	if err := h.RemoveParent(context.Background(), "trunk", neverNeeded); !errors.Is(err, ErrForeign) {
		t.Errorf("remove: %v", err)
	}
	mustLink(t, h, "trunk")
	must(t, h.RemoveParent(context.Background(), "nowhere", neverNeeded))
}

func TestResolveRefuses(t *testing.T) {
	h := mustHost(t)
	mustVeth(t, h, "trunk")
	mustVeth(t, h, "port")
	mustVeth(t, h, "eth0.50")
	bridge := mustAdd(t, h, &netlink.Bridge{LinkAttrs: linkNamed("br0", 0)})
	must(t, h.handle.LinkSetMasterByIndex(mustLink(t, h, "port"), bridge.Attrs().Index))
	mustAdd(t, h, &netlink.Macvlan{LinkAttrs: linkNamed("mv0", mustLink(t, h, "trunk").Attrs().Index),
		Mode: netlink.MACVLAN_MODE_BRIDGE})
	for name, want := range map[string]string{
		"nowhere":    `parent "nowhere": no such link`,
		"nowhere.50": `parent "nowhere.50": no such link, and no link "nowhere" to create it on`,
		"lo":         `parent "lo" is the loopback link, which is on no LAN: choose another`,
		"all":        `parent "all" has the settings of several links in /proc/sys/net: choose another name`,
		"lo.50":      `parent "lo.50": cannot create it: "lo" is not an Ethernet link (loopback)`,
		"eth0.4095":  `parent "eth0.4095": VLAN 4095 is not between 1 and 4094`,
		"eth0.50": `parent "eth0.50": is a link of type "veth", not VLAN 50 on "eth0": ` +
			`rename that link or choose another parent`,
		"port": `parent "port": is a port of the bridge "br0" and cannot carry a network: use "br0" as parent`,
		"mv0":  `parent "mv0": is of type macvlan itself: name the link below it`,
	} {
		if _, _, err := h.EnsureParent(context.Background(), ParentSpec{Name: name}, true); err == nil ||
			!strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	// In a system container, whose only link is a macvlan of the machine around it.
	inner := mustHost(t)
	l := mustLink(t, h, "mv0")
	must(t, inner.Do(func() error {
		self, err := ns.GetCurrentNS()
		if err != nil {
			return err
		}
		defer self.Close()
		return h.handle.LinkSetNsFd(l, int(self.Fd()))
	}))
	const want = `parent "mv0": is of type macvlan on a link in another network namespace, as in a system container: `
	if _, err := inner.Resolve(ParentSpec{Name: "mv0"}); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := h.Resolve(ParentSpec{Name: "nowhere"}); !errors.Is(err, ErrNoLink) {
		t.Errorf("%v", err)
	}
	// A bridge itself can be a parent.
	mustResolve(t, h, "br0")
}

func TestDown(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	want := func(want string) {
		t.Helper()
		if why, err := h.Down(p); err != nil || why != want {
			t.Errorf("got %q, %v; want %q", why, err, want)
		}
	}
	// The kernel changes the carrier in the background (linkwatch).
	waitFor(t, "a carrier", func() bool { why, err := h.Down(p); return err == nil && why == "" })
	must(t, h.handle.LinkSetDown(mustLink(t, h, "trunkp")))
	want(`"trunk" has no carrier`)
	must(t, h.handle.LinkSetDown(mustLink(t, h, "trunk")))
	want(`"trunk" is down`)
	must(t, h.handle.LinkDel(mustLink(t, h, "trunk")))
	want(`"trunk" is gone`)
}
