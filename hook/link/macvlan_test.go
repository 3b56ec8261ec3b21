package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/ether"
)

const testMAC = "02:42:c0:a8:32:09"

// mustCreate creates the interface of spec.
func mustCreate(tb testing.TB, h *Host, n *Netns, spec MacvlanSpec) Interface {
	tb.Helper()
	i, err := h.CreateMacvlan(withTimeout(tb, 5*time.Second), n, spec)
	must(tb, err)
	return i
}

func specOn(tb testing.TB, p Parent) MacvlanSpec {
	tb.Helper()
	return MacvlanSpec{Name: "eth0", Parent: p, Mode: ModeBridge, MAC: mustMAC(tb, testMAC)}
}

func TestCreateMacvlan(t *testing.T) {
	for mode, kernel := range kernelModes {
		t.Run(string(mode), func(t *testing.T) {
			h := mustHost(t)
			p := mustResolve(t, h, mustVeth(t, h, "trunk"))
			n := mustNetns(t, h)
			if mode == ModeVEPA { // the same name on the host has no effect
				mustVeth(t, h, "eth0")
			}
			spec := specOn(t, p)
			spec.Mode, spec.MTU = mode, 1400
			if mode == ModePassthru {
				spec.MAC = ether.MAC{}
			}
			i := mustCreate(t, h, n, spec)
			wantMAC := spec.MAC
			if mode == ModePassthru {
				wantMAC = p.MAC
			}
			if diff := cmp.Diff(Interface{Name: "eth0", Kind: "macvlan", Index: i.Index, MAC: wantMAC, MTU: 1400,
				ParentIndex: p.Index, Marked: true}, i); diff != "" {
				t.Error(diff)
			}
			l, err := linkByIndex(n.handle, i.Index)
			if err != nil || l == nil || !interfaceOf(l).Marked {
				t.Fatalf("%v, %v", l, err)
			}
			m, a := l.(*netlink.Macvlan), l.Attrs()
			if m.Mode != kernel || a.Name != "eth0" || a.MTU != 1400 || ether.MACOf(a.HardwareAddr) != wantMAC || !isUp(l) ||
				a.ParentIndex != p.Index {
				t.Errorf("the kernel reports %+v", m)
			}
			must(t, n.DeleteInterface(i))
			must(t, n.DeleteInterface(i)) // deleted already
		})
	}
}

func TestCreateMacvlanRefuses(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	n := mustNetns(t, h)
	before := links(t, n)
	for _, test := range []struct {
		want string
		edit func(*MacvlanSpec)
	}{
		{`create interface "": a link's name is missing`, func(s *MacvlanSpec) { s.Name = "" }},
		{`create interface "../../kernel": "../../kernel" cannot be`, func(s *MacvlanSpec) { s.Name = "../../kernel" }},
		{`create interface "sixteen-bytes-xx": "sixteen-bytes-xx" has 16 bytes: Linux allows 15`,
			func(s *MacvlanSpec) { s.Name = "sixteen-bytes-xx" }},
		{`create interface "eth0": "source" is not a macvlan mode`, func(s *MacvlanSpec) { s.Mode = "source" }},
		{`create interface "eth0": MTU 1501 is more than the 1500 of parent "trunk"`, func(s *MacvlanSpec) { s.MTU = 1501 }},
		{`create interface "eth0": MAC "00:00:00:00:00:00" is not`, func(s *MacvlanSpec) { s.MAC = ether.MAC{} }},
		{`create interface "eth0": MAC "01:00:5e:00:00:01" is not`,
			func(s *MacvlanSpec) { s.MAC = mustMAC(t, "01:00:5e:00:00:01") }},
		{`create interface "eth0": cannot use MAC ` + testMAC + `: in mode passthru`,
			func(s *MacvlanSpec) { s.Mode = ModePassthru }},
		{`create interface "eth0": cannot use MAC ` + p.MAC.String() + `: parent "trunk" has it`,
			func(s *MacvlanSpec) { s.MAC = p.MAC }},
		{`create interface "eth0": parent "trunk" is gone`, func(s *MacvlanSpec) { s.Parent.Index = 9999 }},
	} {
		spec := specOn(t, p)
		test.edit(&spec)
		_, err := h.CreateMacvlan(context.Background(), n, spec)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got  %v\nwant %s…", err, test.want)
		}
	}
	if diff := cmp.Diff(before, links(t, n)); diff != "" {
		t.Errorf("left behind: %s", diff)
	}
}

func links(tb testing.TB, n *Netns) []string {
	tb.Helper()
	list, err := dump(n.handle.LinkList)
	must(tb, err)
	var names []string
	for _, l := range list {
		names = append(names, l.Attrs().Name)
	}
	return names
}

func TestCreateMacvlanNameTaken(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	n := mustNetns(t, h)
	first := mustCreate(t, h, n, specOn(t, p))
	spec := specOn(t, p)
	spec.MAC = mustMAC(t, "02:42:00:00:00:02")
	_, err := h.CreateMacvlan(context.Background(), n, spec)
	if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), `the container has a "eth0" already`) {
		t.Errorf("%v", err)
	}
	if i, err := n.FindMacvlan(p.Index, 0, spec.MAC); i != nil || err != nil {
		t.Errorf("left behind: %v, %v", i, err)
	}
	if i, err := n.FindMacvlan(p.Index, 0, first.MAC); err != nil || i == nil || i.Index != first.Index {
		t.Errorf("the first interface: %v, %v", i, err)
	}
}

func TestPassthruNeedsItsParentExclusively(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	n := mustNetns(t, h)
	first := mustCreate(t, h, n, specOn(t, p))
	alone := MacvlanSpec{Name: "eth1", Parent: p, Mode: ModePassthru}
	if _, err := h.CreateMacvlan(context.Background(), n, alone); err == nil ||
		!strings.Contains(err.Error(), "mode passthru needs the parent exclusively") {
		t.Errorf("%v", err)
	}
	must(t, n.DeleteInterface(first))
	i := mustCreate(t, h, n, alone)
	if _, err := h.CreateMacvlan(context.Background(), n, specOn(t, p)); err == nil ||
		!strings.Contains(err.Error(), "mode passthru?") {
		t.Errorf("%v", err)
	}
	if _, err := n.SetMAC(context.Background(), i, mustMAC(t, testMAC)); err == nil ||
		!strings.Contains(err.Error(), "would change the parent's") {
		t.Errorf("%v", err)
	}
	if now := mustResolve(t, h, "trunk"); now.MAC != p.MAC {
		t.Errorf("the parent's MAC changed to %s", now.MAC)
	}
}

// A restarted container finds its MAC in use by its previous interface, which the kernel
// has not yet cleaned up.
func TestBusyMACIsWaitedFor(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	former, n := mustNetns(t, h), mustNetns(t, h)
	old := mustCreate(t, h, former, specOn(t, p))
	var cleanup sync.WaitGroup
	cleanup.Go(func() {
		for waiting := false; !waiting; { // mustCreate bounds it
			i, err := n.FindMacvlan(p.Index, 0, old.MAC)
			waiting = err != nil || i != nil
		}
		if err := former.DeleteInterface(old); err != nil {
			t.Error(err)
		}
	})
	i := mustCreate(t, h, n, specOn(t, p))
	cleanup.Wait()
	if l, err := linkByIndex(n.handle, i.Index); err != nil || l == nil || !isUp(l) || i.Name != "eth0" {
		t.Errorf("%+v: %v, %v", i, l, err)
	}
}

func TestBusyMACTimesOut(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	other, n := mustNetns(t, h), mustNetns(t, h)
	mustCreate(t, h, other, specOn(t, p))
	start := time.Now()
	_, err := h.CreateMacvlan(withTimeout(t, 50*time.Millisecond), n, specOn(t, p))
	if !errors.Is(err, ErrMACBusy) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took < 50*time.Millisecond || took > 5*time.Second {
		t.Errorf("gave up after %s", took)
	}
	if i, err := n.FindMacvlan(p.Index, 0, mustMAC(t, testMAC)); i != nil || err != nil {
		t.Errorf("left behind: %v, %v", i, err)
	}
}

func TestSetMAC(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	other, n := mustNetns(t, h), mustNetns(t, h)
	i := mustCreate(t, h, n, specOn(t, p))
	next := mustMAC(t, "02:42:c0:a8:32:0a")
	changed, err := n.SetMAC(context.Background(), i, next)
	must(t, err)
	l, err := linkByIndex(n.handle, i.Index)
	if err != nil || ether.MACOf(l.Attrs().HardwareAddr) != next || !isUp(l) || changed.MAC != next {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := n.SetMAC(context.Background(), i, next); !errors.Is(err, ErrForeign) {
		t.Errorf("of an interface that has another MAC now: %v", err)
	}
	mustCreate(t, h, other, specOn(t, p)) // the first MAC is free now
	if _, err := n.SetMAC(withTimeout(t, 20*time.Millisecond), changed, i.MAC); !errors.Is(err, ErrMACBusy) {
		t.Errorf("to a busy MAC: %v", err)
	}
}

func TestForeignLinksAreNotDeleted(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	n := mustNetns(t, h)
	i := mustCreate(t, h, n, specOn(t, p))
	must(t, n.handle.LinkAdd(&netlink.Veth{LinkAttrs: linkNamed("theirs", 0), PeerName: "theirsp"}))
	veth, err := linkByName(n.handle, "theirs")
	must(t, err)
	for what, other := range map[string]Interface{
		"another MAC":    {Index: i.Index, MAC: mustMAC(t, "02:42:00:00:00:02"), ParentIndex: i.ParentIndex},
		"another parent": {Index: i.Index, MAC: i.MAC, ParentIndex: i.ParentIndex + 1},
		"another kind": {Index: veth.Attrs().Index, MAC: ether.MACOf(veth.Attrs().HardwareAddr),
			ParentIndex: veth.Attrs().ParentIndex},
	} {
		if err := n.DeleteInterface(other); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := links(t, n); len(got) != 4 {
		t.Errorf("got links %v, want lo, eth0, theirs and theirsp", got)
	}
}

func TestIPv6FollowsTheSpec(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	off, on := mustNetns(t, h), mustNetns(t, h)
	// A default for new interfaces, as an image or a runtime may set it.
	must(t, on.Do(func() error { return writeSysctl("ipv6/conf/default/disable_ipv6", "1") }))
	spec := specOn(t, p)
	mustCreate(t, h, off, spec)
	spec.MAC, spec.IPv6 = mustMAC(t, "02:42:00:00:00:02"), true
	i := mustCreate(t, h, on, spec)
	if got := readSysctl(t, off, "ipv6/conf/eth0/disable_ipv6"); got != "1" {
		t.Errorf("off: disable_ipv6=%s", got)
	}
	if got := readSysctl(t, on, "ipv6/conf/eth0/disable_ipv6") + readSysctl(t, on,
		"ipv6/conf/eth0/accept_ra"); got != "00" {
		t.Errorf("on: disable_ipv6 and accept_ra are %s", got)
	}
	if addrs, err := off.Addrs(0); err != nil || len(addrs) != 0 {
		t.Errorf("off: %v, %v", addrs, err)
	}
	waitFor(t, "a link-local address", func() bool {
		addrs, err := on.Addrs(i.Index)
		return err == nil && len(addrs) == 1 && addrs[0].Prefix == netip.MustParsePrefix("fe80::42:ff:fe00:2/64")
	})
	// The loopback interface is unchanged.
	if got := readSysctl(t, off, "ipv6/conf/lo/disable_ipv6"); got != "0" {
		t.Errorf("off: lo's disable_ipv6=%s", got)
	}
}

func TestAddressesAndRoutes(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	n := mustNetns(t, h)
	spec := specOn(t, p)
	spec.IPv6 = true
	i := mustCreate(t, h, n, spec)
	four, six := Addr{Prefix: subnet}, Addr{Prefix: netip.MustParsePrefix("fd50::9/64")}
	two := Addr{Prefix: netip.MustParsePrefix("10.0.0.0/31")}
	for _, a := range []Addr{four, six, two} {
		must(t, n.AddAddr(i.Index, a))
		if err := n.AddAddr(i.Index, a); err == nil || !strings.Contains(err.Error(), "has it already") {
			t.Errorf("added twice: %v", err)
		}
	}
	addrs, err := n.Addrs(i.Index)
	must(t, err)
	got := map[string]Addr{}
	for _, a := range addrs {
		got[a.Prefix.String()] = a
	}
	if a, ok := got["fd50::9/64"]; !ok || a.DAD || a.Tentative || a.Duplicate {
		t.Errorf("fd50::9 is not usable at once: %v", addrs)
	}
	kernel, err := dump(func() ([]netlink.Addr, error) { return n.handle.AddrList(nil, netlink.FAMILY_V4) })
	must(t, err)
	for _, a := range kernel {
		want := map[string]net.IP{"192.168.50.9/24": net.IPv4(192, 168, 50, 255).To4(), "10.0.0.0/31": nil}[a.IPNet.String()]
		if !a.Broadcast.Equal(want) {
			t.Errorf("%s has broadcast address %v, want %v", a.IPNet, a.Broadcast, want)
		}
	}
	for _, gateway := range []string{"192.168.50.1", "fd50::1"} {
		must(t, n.AddRoute(DefaultRoute(i.Index, netip.MustParseAddr(gateway))))
	}
	if err := n.AddRoute(DefaultRoute(i.Index, netip.MustParseAddr("192.168.50.2"))); err == nil ||
		!strings.HasSuffix(err.Error(), `interface "eth0" has one already`) {
		t.Errorf("a second default route: %v", err)
	}
	far := Route{Index: i.Index, Dst: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("172.16.0.1")}
	if err := n.AddRoute(far); err == nil || !strings.HasSuffix(err.Error(),
		"gateway 172.16.0.1 is in no subnet of the interface") {
		t.Errorf("a gateway outside of all subnets: %v", err)
	}
	far.OnLink = true
	must(t, n.AddRoute(far))
	direct := Route{Index: i.Index, Dst: netip.MustParsePrefix("10.8.0.0/16")}
	must(t, n.AddRoute(direct))
	wantRoutes(t, n, DefaultRoute(i.Index, netip.MustParseAddr("192.168.50.1")),
		DefaultRoute(i.Index, netip.MustParseAddr("fd50::1")), far, direct)
	must(t, n.DelAddr(i.Index, four.Prefix))
	must(t, n.DelAddr(i.Index, four.Prefix)) // deleted already
	addrs, err = n.Addrs(i.Index)
	must(t, err)
	for _, a := range addrs {
		if a.Prefix == four.Prefix {
			t.Errorf("%s is deleted but listed: %v", four.Prefix, addrs)
		}
	}
}

func wantRoutes(tb testing.TB, n *Netns, want ...Route) {
	tb.Helper()
	got, err := n.Routes()
	must(tb, err)
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || cmp.Equal(w, g, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
		}
		if !found {
			tb.Errorf("no %+v in %+v", w, got)
		}
	}
}

func TestParentUnicast(t *testing.T) {
	h := mustHost(t)
	p := mustResolve(t, h, mustVeth(t, h, "trunk"))
	before, err := h.ParentUnicast(p.Index)
	if err != nil || len(before) != 0 {
		t.Fatalf("%v, %v", before, err)
	}
	n := mustNetns(t, h)
	i := mustCreate(t, h, n, specOn(t, p))
	got, err := h.ParentUnicast(p.Index)
	if err != nil || len(got) != 1 || got[0] != i.MAC {
		t.Errorf("%v, %v; want %s", got, err, i.MAC)
	}
}
