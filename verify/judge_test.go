package verify

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
)

var (
	gateway = netip.MustParseAddr("192.168.50.1")
	gwMAC   = ether.MAC{2, 0, 0, 0, 0, 1}
	other   = ether.MAC{2, 0, 0, 0, 0, 2}
	vlan50  = ether.Tags{{TPID: ether.Dot1Q, VID: 50}}
)

// healthy returns the facts of a gateway that was asked at 1 s and answered 200 µs later, both with
// the right tag.
func healthy() Facts {
	at := Instant(time.Second)
	return Facts{
		Parent: "eth0.50", Trunk: "eth0", Tags: vlan50, Gateway: gateway,
		Asked: at, Now: at + Instant(time.Millisecond),
		Answer: Answer{Addr: gateway, MAC: gwMAC, At: at + Instant(400*time.Microsecond)},
		Seen: &GatewaySeen{
			Addr: gateway, MAC: gwMAC,
			Asked: Sighting{At: at + 1000, Count: 1, Tags: vlan50},
			Reply: Sighting{At: at + 201000, Count: 1, Tags: vlan50}, Direct: at + 201000,
		},
		VLANs: []VLANSeen{{VID: 50, At: at, Frames: 1}},
		Local: func(ether.MAC) bool { return false },
	}
}

func silence(f *Facts) {
	f.Answer, f.Seen.Reply, f.Seen.MAC, f.VLANs = Answer{}, Sighting{}, ether.MAC{}, nil
	f.Now = f.Asked + Instant(time.Second)
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*Facts)
		code  Code
		says  []string
	}{
		{"healthy", func(*Facts) {}, OK, []string{"192.168.50.1", gwMAC.String(), "200µs", "VLAN 50"}},
		{"untagged network", func(f *Facts) { f.Tags, f.Seen.Asked.Tags, f.Seen.Reply.Tags = nil, nil, nil }, OK,
			[]string{"untagged"}},
		{"the trunk alone saw the reply", func(f *Facts) { f.Answer = Answer{} }, NotDelivered,
			[]string{gwMAC.String(), "did not reach the container", `"eth0.50"`, `"eth0"`}},
		{"the trunk alone saw the reply, and the parent's socket heard one",
			func(f *Facts) { f.Answer, f.Control = Answer{}, Answer{MAC: gwMAC} }, NotDelivered, nil},
		{"claimant", func(f *Facts) {
			f.Claimants = []Claimant{{Addr: netip.MustParseAddr("192.168.50.9"), MAC: other}}
		}, AddressConflict, []string{"192.168.50.9", other.String()}},
		{"down", func(f *Facts) { silence(f); f.Down = `"eth0" has no carrier` }, ParentDown, []string{"no carrier"}},
		{"not watched", func(f *Facts) { f.Seen, f.Unwatched = nil, "no CAP_BPF" }, Unobserved, []string{"no CAP_BPF"}},
		{"not watched, silent", func(f *Facts) { silence(f); f.Seen, f.Unwatched = nil, "no CAP_BPF" }, GatewaySilent,
			[]string{"no CAP_BPF"}},
		{"hidden on the way out", func(f *Facts) { f.Seen, f.Ahead.Out = &GatewaySeen{}, []string{"a filter"} }, Unobserved,
			[]string{"bypassed by a filter on the egress", gwMAC.String()}},
		{"hidden on the way out alone", func(f *Facts) { f.Seen.Asked, f.Ahead.Out = Sighting{}, []string{"a filter"} },
			Unobserved, []string{"egress"}},
		{"hidden on the way in", func(f *Facts) {
			f.Seen.Reply, f.Seen.MAC, f.Ahead.In = Sighting{}, ether.MAC{}, []string{"a filter"}
		}, Unobserved, []string{"ingress"}},
		{"another program runs first and hides nothing",
			func(f *Facts) { f.Ahead = Ahead{[]string{"a filter"}, []string{"a filter"}} }, OK, nil},
		{"another program runs first, and a sibling answers", func(f *Facts) {
			f.Seen.Reply, f.Seen.MAC, f.Ahead.In = Sighting{}, ether.MAC{}, []string{"a filter"}
			f.Local = func(m ether.MAC) bool { return m == gwMAC }
		}, OKLocal, nil},
		{"dropped by a program that runs first", func(f *Facts) {
			silence(f)
			f.Seen.Asked, f.Ahead.Out = Sighting{}, []string{"a filter"}
		}, NotSent, []string{"look at a filter"}},
		{"dropped on ingress by a program that runs first", func(f *Facts) {
			silence(f)
			f.Control, f.Ahead.In = Answer{MAC: gwMAC}, []string{"a filter"}
		}, GatewaySilent, []string{"look at a filter", gwMAC.String()}},
		{"filtered, and another program runs first", func(f *Facts) {
			silence(f)
			f.Control, f.Ahead.In, f.VLANs = Answer{MAC: gwMAC}, []string{"a filter"},
				[]VLANSeen{{VID: 50, At: f.Now, Frames: 1}}
		}, MACFiltered, nil},
		{"dropped on the way", func(f *Facts) { silence(f); f.Seen.Asked = Sighting{} }, NotSent,
			[]string{`"eth0.50"`, `"eth0"`}},
		{"asked only in an earlier round", func(f *Facts) { silence(f); f.Seen.Asked.At = f.Asked - 1 }, NotSent, nil},
		{"no tag", func(f *Facts) { f.Seen.Asked.Tags = nil }, Untagged, []string{"untagged, not VLAN 50"}},
		{"other tag", func(f *Facts) { f.Seen.Asked.Tags = ether.Tags{{TPID: ether.Dot1Q, VID: 60}} }, WrongVLAN,
			[]string{"VLAN 60, not VLAN 50"}},
		{"other kind of tag", func(f *Facts) { f.Seen.Asked.Tags = ether.Tags{{TPID: ether.Dot1AD, VID: 50}} }, WrongVLAN,
			[]string{"VLAN 50ad"}},
		{"two tags", func(f *Facts) {
			f.Seen.Asked.Tags = ether.Tags{{TPID: ether.Dot1Q, VID: 50}, {TPID: ether.Dot1Q, VID: 60}}
		}, UnexpectedTag,
			[]string{"VLAN 50.60"}},
		{"tag on an untagged network", func(f *Facts) { f.Tags = nil }, UnexpectedTag, nil},
		{"reply elsewhere", func(f *Facts) {
			f.Answer, f.Seen.Reply.Tags = Answer{}, ether.Tags{{TPID: ether.Dot1Q, VID: 60}}
		}, ReplyWrongVLAN,
			[]string{"answered on VLAN 60"}},
		{"another VLAN's router has the address", func(f *Facts) {
			f.Seen.MAC, f.Seen.Reply.Tags = other, ether.Tags{{TPID: ether.Dot1Q, VID: 60}}
		}, OK, []string{gwMAC.String()}},
		{"another VLAN's router has the address, and announces it after the gateway's answer", func(f *Facts) {
			f.Seen.MAC, f.Seen.Reply.Tags = other, ether.Tags{{TPID: ether.Dot1Q, VID: 60}}
			f.Seen.Other, f.Seen.OtherAt = gwMAC, f.Asked+5
		}, OK, []string{gwMAC.String(), "400µs"}},
		{"sibling answers", func(f *Facts) { f.Seen.Reply, f.Seen.MAC = Sighting{}, ether.MAC{} }, OKLocal,
			[]string{"on this host"}},
		{"sibling answers unseen", func(f *Facts) { f.Seen = &GatewaySeen{} }, OKLocal, nil},
		{"host answers", func(f *Facts) { f.Local = func(m ether.MAC) bool { return m == gwMAC } }, OKLocal, nil},
		{"two gateways", func(f *Facts) { f.Seen.Other, f.Seen.OtherAt = other, f.Asked+5 }, GatewayConflict,
			[]string{gwMAC.String(), other.String()}},
		{"two gateways, one of them a proxy for all",
			func(f *Facts) { f.Seen.Other, f.Seen.OtherAt, f.Proxies = other, f.Asked+5, []ether.MAC{other} }, OK, nil},
		{"two routers of a GLBP group", func(f *Facts) {
			f.Seen.MAC, f.Seen.Other, f.Seen.OtherAt = ether.MAC{0, 7, 0xb4, 0, 1, 1}, ether.MAC{0, 7, 0xb4, 0, 1, 2}, f.Asked+5
		}, OK, nil},
		{"VRRP and another station", func(f *Facts) {
			f.Seen.MAC, f.Seen.Other, f.Seen.OtherAt = ether.MAC{0, 0, 0x5e, 0, 1, 50}, other, f.Asked+5
		}, GatewayConflict, []string{"(VRRP or CARP)", other.String()}},
		{"not watched, two gateways", func(f *Facts) { f.Seen, f.Other = nil, Answer{MAC: other} }, GatewayConflict,
			[]string{gwMAC.String(), other.String()}},
		{"not watched, a gateway and a proxy for all",
			func(f *Facts) { f.Seen, f.Other, f.Proxies = nil, Answer{MAC: other}, []ether.MAC{other} }, Unobserved, nil},
		{"silent, and a router advertises itself", func(f *Facts) {
			silence(f)
			f.VLANs = []VLANSeen{{VID: 50, At: f.Asked, Frames: 1}}
			f.Routers = []Answer{{Addr: gwMAC.LinkLocal(), MAC: gwMAC}}
		}, GatewaySilent, []string{
			"router " + gwMAC.LinkLocal().String(), gwMAC.String(), "check the gateway and its address",
		}},
		{"silent, and no router", func(f *Facts) {
			silence(f)
			f.VLANs, f.Routers = []VLANSeen{{VID: 50, At: f.Asked, Frames: 1}}, []Answer{}
		}, GatewaySilent, []string{"no router advertises itself"}},
		{"not watched, silent, and no router", func(f *Facts) { silence(f); f.Seen, f.Routers = nil, []Answer{} },
			GatewaySilent, []string{"no router advertises itself"}},
		{"answered late", func(f *Facts) { f.Probes = 3 }, OK, []string{"not before 3 probes", "portfast", "400µs"}},
		{"filtered", func(f *Facts) { silence(f); f.Control, f.MAC = Answer{MAC: gwMAC}, other }, MACFiltered,
			[]string{gwMAC.String(), other.String(), "port security"}},
		{"filtered on the way back", func(f *Facts) {
			f.Gateway, f.Control, f.Seen.Direct = netip.MustParseAddr("fd50::1"), Answer{MAC: gwMAC}, f.Asked-1
		}, MACFiltered, nil},
		{"announces itself to all nodes", func(f *Facts) { f.Gateway, f.Seen.Direct = netip.MustParseAddr("fd50::1"), 0 },
			GatewaySilent, []string{gwMAC.String(), "answers no question"}},
		{"announces itself by ARP replies to all", func(f *Facts) { f.Answer, f.Seen.Direct = Answer{}, 0 }, GatewaySilent,
			[]string{"answers no question"}},
		{"announces itself to all nodes, from this host", func(f *Facts) {
			f.Gateway, f.Seen.Direct = netip.MustParseAddr("fd50::1"), 0
			f.Local = func(m ether.MAC) bool { return m == gwMAC }
		}, OKLocal, nil},
		{"answered to all nodes and to the container", func(f *Facts) {
			f.Gateway, f.Control, f.Seen.Direct = netip.MustParseAddr("fd50::1"), Answer{MAC: gwMAC}, f.Asked+7
		}, OK, nil},
		{"filtered, not watched",
			func(f *Facts) { silence(f); f.Control, f.Seen = Answer{MAC: gwMAC}, nil }, MACFiltered, nil},
		{"dropped on this host, except for the parent's MAC",
			func(f *Facts) { silence(f); f.Control, f.Seen.Asked = Answer{MAC: gwMAC}, Sighting{} }, NotSent, nil},
		{"failed over long ago", func(f *Facts) { f.Seen.Other, f.Seen.OtherAt = other, f.Asked-5 }, OK, nil},
		{"silent, VLAN alive", func(f *Facts) { silence(f); f.VLANs = []VLANSeen{{VID: 50, At: f.Now - 5, Frames: 9}} },
			GatewaySilent, []string{"1s", "alive"}},
		{"silent, VLAN heard before the question, and the switch names its VLANs", func(f *Facts) {
			silence(f)
			f.VLANs = []VLANSeen{{VID: 50, At: f.Asked - 5, Frames: 9}}
			f.Port = func() string { return "port 7 carries VLAN 60" }
		}, GatewaySilent, []string{"still carries VLAN 50, last heard 1s ago: port 7 carries VLAN 60"}},
		{"silent, VLAN heard too long ago", func(f *Facts) {
			f.VLANs = []VLANSeen{{VID: 50, At: f.Asked, Frames: 9}}
			silence(f)
			f.Now += Instant(2 * aliveFor)
			f.VLANs = []VLANSeen{{VID: 50, At: f.Asked, Frames: 9}, {VID: 60, At: f.Now - 7, Frames: 1},
				{VID: 0, At: f.Now - 9, Frames: 1}}
		}, VLANSilent, []string{"VLAN 60", "untagged"}},
		{"silent, outer VLAN alive", func(f *Facts) {
			silence(f)
			f.Tags = ether.Tags{{TPID: ether.Dot1AD, VID: 100}, {TPID: ether.Dot1Q, VID: 200}}
			f.Seen.Asked.Tags, f.VLANs = f.Tags, []VLANSeen{{VID: 100, At: f.Now - 5, Frames: 9}}
		}, GatewaySilent, []string{"though VLAN 100ad is alive", "VLAN 200 is carried inside"}},
		{"this host is the gateway", func(f *Facts) { silence(f); f.GatewayLink = "lan51" }, GatewaySilent,
			[]string{`this host's own address on "lan51"`, "--host-access"}},
		{"this host is the gateway, not watched", func(f *Facts) { silence(f); f.GatewayLink, f.Seen = "lan51", nil },
			GatewaySilent, []string{`this host's own address on "lan51"`}},
		{"this host has the gateway's address, and answers", func(f *Facts) { f.GatewayLink = "lan51" }, OK, nil},
		{"nothing at all", silence, VLANSilent, []string{"nothing else was heard"}},
		{"no gateway", func(f *Facts) { silence(f); f.Gateway = netip.Addr{} }, OK, []string{"no gateway to ask"}},
		{"no gateway, wrong tag", func(f *Facts) { silence(f); f.Gateway = netip.Addr{}; f.Seen.Asked.Tags = nil },
			Untagged, nil},
		{"no gateway, not watched", func(f *Facts) {
			silence(f)
			f.Gateway = netip.Addr{}
			f.Seen, f.Unwatched = nil, "why"
		}, Unobserved, []string{"why"}},
	} {
		f := healthy()
		c.fault(&f)
		v := Judge(f)
		if v.Code != c.code {
			t.Errorf("%s: got %s (%s), want %s", c.name, v.Code, v.Text, c.code)
		}
		for _, s := range c.says {
			if !strings.Contains(v.Text, s) {
				t.Errorf("%s: %q does not say %q", c.name, v.Text, s)
			}
		}
		if strings.Contains(v.Text, "\n") || v.Text == "" {
			t.Errorf("%s: want one line, got %q", c.name, v.Text)
		}
	}
}

func TestWorst(t *testing.T) {
	got := Worst([]Verdict{{Code: OK}, {Code: GatewaySilent, Text: "first"}, {Code: GatewaySilent, Text: "second"},
		{Code: OKLocal}})
	if got.Code != GatewaySilent || got.Text != "first" {
		t.Errorf("got %+v", got)
	}
}

func TestFatal(t *testing.T) {
	for code, modes := range map[Code]string{
		OK: "", OKLocal: "", Unobserved: "", Unverified: "",
		MACFiltered: "strict", GatewaySilent: "strict", VLANSilent: "strict", ParentDown: "strict", NotSent: "strict",
		NotDelivered:   "strict",
		ReplyWrongVLAN: "strict", GatewayConflict: "strict", InterfaceChanged: "strict", InterfaceGone: "strict",
		LeaseLost: "strict", NoRouter: "strict", DHCPSilent: "off warn strict", DHCPWrongVLAN: "off warn strict",
		Untagged: "warn strict", WrongVLAN: "warn strict", UnexpectedTag: "warn strict", AddressConflict: "warn strict",
	} {
		for _, m := range []Mode{Off, Warn, Strict} {
			if got, want := code.Fatal(m), strings.Contains(modes, string(m)); got != want {
				t.Errorf("%s in mode %s: fatal = %v, want %v", code, m, got, want)
			}
		}
	}
	for _, m := range []Mode{Off, Warn, Strict} {
		if Strict.Tighten(m) != Strict || Off.Tighten(m) != m {
			t.Errorf("tighten with %s loosens", m)
		}
	}
}

func TestRecordsKeepTheReadableForm(t *testing.T) {
	var m ether.MAC
	if err := m.UnmarshalText([]byte("02:42:c0:a8:32:02")); err != nil || m.String() != "02:42:c0:a8:32:02" {
		t.Error(m, err)
	}
	if err := m.UnmarshalText([]byte("02:42")); err == nil || !m.IsZero() {
		t.Error("a short MAC was accepted:", m)
	}
	var id ID
	if err := id.UnmarshalText([]byte(strings.Repeat("0f", 16))); err != nil || id.String() != strings.Repeat("0f", 16) {
		t.Error(id, err)
	}
	for _, bad := range []string{"", "0f", strings.Repeat("0f", 17), strings.Repeat("zz", 16)} {
		if err := id.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("id %q was accepted", bad)
		}
	}
}

func TestVendor(t *testing.T) {
	for _, c := range []struct {
		mac     ether.MAC
		vendor  string
		virtual bool
	}{
		{ether.MAC{0, 0, 0x5e, 0, 1, 50}, "VRRP or CARP", true},
		{ether.MAC{0, 7, 0xb4, 0, 1, 2}, "GLBP", true},
		{ether.MAC{0x52, 0x54, 0, 1, 2, 3}, "QEMU", false},
		{ether.MAC{2, 0x42, 192, 168, 50, 2}, "a container of Docker or Lanyard", false},
		{ether.MAC{0x0a, 1, 2, 3, 4, 5}, "set by hand or by software", false},
		{ether.MAC{0x3c, 0x52, 0x82, 1, 2, 3}, "", false},
	} {
		if c.mac.Vendor() != c.vendor || c.mac.Virtual() != c.virtual ||
			!strings.HasPrefix(c.mac.Describe(), c.mac.String()) {
			t.Errorf("%s: vendor %q, virtual %v; want %q, %v", c.mac, c.mac.Vendor(), c.mac.Virtual(), c.vendor, c.virtual)
		}
	}
	// RFC 4291, appendix A: the universal/local bit is inverted.
	if got := (ether.MAC{0x02, 0x42, 192, 168, 50, 2}).LinkLocal(); got != netip.MustParseAddr("fe80::42:c0ff:fea8:3202") {
		t.Error(got)
	}
}
