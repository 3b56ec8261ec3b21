package verify

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// TestJudgeAutoconf goes through the table for addresses from router advertisements.
func TestJudgeAutoconf(t *testing.T) {
	const second = Instant(time.Second)
	local, mac := ether.MAC{2, 0, 0, 0, 0, 1}, ether.MAC{2, 0, 0, 0, 0, 2}
	facts := Facts{
		Parent: "eth0.50", Trunk: "eth0", Tags: ether.Tags{{TPID: 0x8100, VID: 50}}, Asked: 100 * second, Now: 106 * second,
		MAC: ether.MAC{2, 0, 0, 0, 0, 9}, Local: func(m ether.MAC) bool { return m == local },
	}
	addr := func(state AutoState) []AutoAddr {
		return []AutoAddr{{Addr: netip.MustParsePrefix("fd77::9/64"), State: state}}
	}
	good := Autoconf{
		Addrs: addr(AutoUsable), Router: netip.MustParseAddr("fe80::1"), MAC: mac, Waited: 6 * time.Second,
		Heard: "router fe80::1 advertises fd77::/64",
	}
	nothing := func(a *Autoconf) { a.Addrs, a.Heard, a.Router, a.MAC = nil, "", netip.Addr{}, ether.MAC{} }
	for _, c := range []struct {
		code Code
		edit func(*Facts, *Autoconf)
		want string
	}{
		{OK, func(*Facts, *Autoconf) {},
			"on VLAN 50 of \"eth0\" gave fd77::9/64; router fe80::1 (02:00:00:00:00:02) answered"},
		{OK, func(_ *Facts, a *Autoconf) { a.Managed = true },
			"a DHCPv6 server on VLAN 50 of \"eth0\" gave fd77::9/64; router"},
		{GatewaySilent, func(_ *Facts, a *Autoconf) { a.MAC = ether.MAC{} }, "fe80::1, which"},
		{NotSent, func(_ *Facts, a *Autoconf) { a.MAC, a.Seen.OutFrames = ether.MAC{}, 0 },
			"no question from \"eth0.50\" for router fe80::1 reached trunk \"eth0\""},
		{OK, func(_ *Facts, a *Autoconf) { a.Addrs = addr(AutoDeprecated) }, "gave fd77::9/64 (deprecated)"},
		{OKLocal, func(_ *Facts, a *Autoconf) { a.MAC = local }, "nothing about the switch"},
		{Unobserved, func(f *Facts, a *Autoconf) { f.Unwatched, a.Seen = "no BPF", nil }, "not watched: no BPF"},
		{Unobserved, func(_ *Facts, a *Autoconf) { a.Seen.OutFrames = 0 }, "trunk \"eth0\" did not see"},
		{Unobserved, func(_ *Facts, a *Autoconf) { a.Seen.InFrames = 0 }, "trunk \"eth0\" did not see"},
		{GatewaySilent, func(_ *Facts, a *Autoconf) { a.MAC = ether.MAC{} },
			"fe80::1, which has advertised itself, does not"},
		{NoRouter, func(_ *Facts, a *Autoconf) { a.Router = netip.Addr{} },
			"no router gave a default route within 6s, so that IPv6 leads nowhere else: router fe80::1 adv"},
		{NoRouter, func(_ *Facts, a *Autoconf) { nothing(a); a.Addrs = addr(AutoUsable) },
			"gave fd77::9/64, but no router advertised itself within 6s"},
		{ParentDown, func(f *Facts, _ *Autoconf) { f.Down = "no carrier" }, "no carrier"},
		{WrongVLAN, func(_ *Facts, a *Autoconf) { a.Seen.OutWrong = 1 }, "other tags than VLAN 50"},
		{AddressConflict, func(f *Facts, a *Autoconf) {
			a.Addrs, f.Claimants = nil, []Claimant{{Addr: netip.MustParseAddr("fd77::9"), MAC: mac}}
		}, "address fd77::9, which a router's prefix gives to MAC 02:00:00:00:00:09, is held by 02:00:00:00:00:02"},
		{NoRouter, func(_ *Facts, a *Autoconf) { a.Addrs = addr(AutoTentative) }, "fd77::9 is not usable after 6s"},
		{NoRouter, func(_ *Facts, a *Autoconf) { a.Addrs = nil }, "within 6s: router fe80::1 advertises fd77::/64: check"},
		{NoRouter, func(f *Facts, a *Autoconf) { nothing(a); f.Unwatched, a.Seen = "no BPF", nil }, "not watched: no BPF"},
		{NotSent, func(_ *Facts, a *Autoconf) { nothing(a); a.Seen.OutFrames = 0 }, "reached trunk \"eth0\""},
		{NoRouter, func(f *Facts, a *Autoconf) {
			nothing(a)
			f.VLANs = []VLANSeen{{VID: 60, At: 101 * second, Frames: 1}}
			f.Port = func() string { return "port 7 carries 60" }
		}, "heard: VLAN 60): check the router, and that the switch port carries VLAN 50: port 7 carries 60"},
		{NoRouter, func(f *Facts, a *Autoconf) { nothing(a); f.VLANs = []VLANSeen{{VID: 50, At: 101 * second, Frames: 1}} },
			"within 6s on VLAN 50 of \"eth0\", though it is alive"},
	} {
		f, a := facts, good
		a.Seen = &Counters{OutFrames: 3, InFrames: 1}
		c.edit(&f, &a)
		if got := JudgeAutoconf(f, a); got.Code != c.code || !strings.Contains(got.Text, c.want) ||
			strings.Contains(got.Text, "%!") {
			t.Errorf("got %s: %s, want %s: %s", got.Code, got.Text, c.code, c.want)
		}
	}
}

// TestAutoText checks that the text of any number of addresses is short.
func TestAutoText(t *testing.T) {
	var addrs []AutoAddr
	for _, state := range []AutoState{AutoDeprecated, AutoTentative, AutoUsable, AutoUsable, AutoUsable, AutoUsable} {
		addrs = append(addrs, AutoAddr{Addr: netip.MustParsePrefix("fd77::9/64"), State: state})
	}
	if got, want := AutoText(addrs), strings.Repeat("fd77::9/64, ", 4)+"and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	changes := Changes(Given{Name: "eth0", Autoconf: true}, Found{Exists: true, Name: "eth0", Up: true, Auto: addrs[1:2]})
	if len(changes) != 1 || changes[0].Code != NoRouter || !strings.Contains(changes[0].Text, "fd77::9/64 (tentative)") {
		t.Errorf("the changes are %v", changes)
	}
}
