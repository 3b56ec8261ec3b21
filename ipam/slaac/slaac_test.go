package slaac

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	wire "github.com/mdlayher/ndp"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// TestHeard checks what is said of advertisements, which any station can send.
func TestHeard(t *testing.T) {
	prefix := func(edit func(*wire.PrefixInformation)) wire.Option {
		p := &wire.PrefixInformation{
			Prefix: netip.MustParseAddr("fd77::"), PrefixLength: 64, OnLink: true, AutonomousAddressConfiguration: true,
			ValidLifetime: time.Hour, PreferredLifetime: time.Hour,
		}
		edit(p)
		return p
	}
	from := netip.MustParseAddr("fe80::1")
	for want, options := range map[string][]wire.Option{
		"router fe80::1 advertises no prefix": {&wire.MTU{MTU: 1400}},
		"router fe80::1 advertises fd77::/64": {prefix(func(*wire.PrefixInformation) {})},
		"no prefix for addresses: fd77::/64 without the autonomous flag": {
			prefix(func(p *wire.PrefixInformation) { p.AutonomousAddressConfiguration = false }),
		},
		"fd77::/56 is not of 64 bits":          {prefix(func(p *wire.PrefixInformation) { p.PrefixLength = 56 })},
		"fd77::/64 with a valid lifetime of 0": {prefix(func(p *wire.PrefixInformation) { p.ValidLifetime = 0 })},
		"preferred for longer": {
			prefix(func(p *wire.PrefixInformation) { p.PreferredLifetime = 2 * time.Hour }),
		},
		"fe80::/64 is no prefix of addresses": {
			prefix(func(p *wire.PrefixInformation) { p.Prefix = netip.MustParseAddr("fe80::") }),
		},
	} {
		l := &Listener{}
		l.keep(ndp.Router{From: from, Lifetime: time.Hour}, options)
		if got := l.Heard(); !strings.Contains(got, want) || l.Giver() != from {
			t.Errorf("got %q, want %q; router %s", got, want, l.Giver())
		}
	}
	if l := (&Listener{}); l.Heard() != "" || l.Giver().IsValid() {
		t.Errorf("without advertisements: %q, router %s", l.Heard(), l.Giver())
	}
}

// TestOnLink checks which prefix holds an address on the link, and what is said of DHCPv6 servers.
func TestOnLink(t *testing.T) {
	prefix := func(p string, on bool, valid time.Duration) wire.Option {
		n := netip.MustParsePrefix(p)
		return &wire.PrefixInformation{Prefix: n.Addr(), PrefixLength: uint8(n.Bits()), OnLink: on, ValidLifetime: valid}
	}
	l := &Listener{}
	l.keep(ndp.Router{From: netip.MustParseAddr("fe80::1"), Managed: true}, []wire.Option{
		prefix("fd78::/64", true, time.Hour), prefix("fd78::/56", true, time.Hour), prefix("fd78::/80", false, time.Hour),
		prefix("fd78::/72", true, 0), prefix("fd79::/48", false, time.Hour), prefix("fe80::/64", true, time.Hour),
		prefix("::/0", true, time.Hour),
	})
	l.keep(ndp.Router{From: netip.MustParseAddr("fe80::2")}, nil)
	for addr, want := range map[string]string{
		"fd78::9": "fd78::/64", "fd78:0:0:1::9": "fd78::/56", "fd79::9": "", "fe80::9": "",
	} {
		if got := l.OnLink(netip.MustParseAddr(addr)); got.IsValid() != (want != "") || want != "" && got.String() != want {
			t.Errorf("%s is in %s, want %q", addr, got, want)
		}
	}
	const want = "router fe80::1 names such servers by its M flag; router fe80::2 does not name such servers by its M flag"
	if got := l.Managed(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestResolver checks which name servers and search domains are kept of advertisements.
func TestResolver(t *testing.T) {
	servers := func(lifetime time.Duration, addrs ...string) wire.Option {
		o := &wire.RecursiveDNSServer{Lifetime: lifetime}
		for _, a := range addrs {
			o.Servers = append(o.Servers, netip.MustParseAddr(a))
		}
		return o
	}
	domains := func(lifetime time.Duration, names ...string) wire.Option {
		return &wire.DNSSearchList{Lifetime: lifetime, DomainNames: names}
	}
	l := &Listener{name: "eth0"}
	first := ndp.Router{From: netip.MustParseAddr("fe80::1")}
	l.keep(first, []wire.Option{servers(time.Hour, "fd77::99"), domains(time.Hour, "old.example")})
	l.keep(first, []wire.Option{
		servers(0, "fd77::51"), servers(time.Hour, "::", "ff02::1", "::1", "::ffff:192.0.2.1", "fd77::53", "fe80::53"),
		domains(0, "gone.example"), domains(time.Hour, "lab.example", "a b", "x\nnameserver", "", "münchen.example"),
	})
	l.keep(ndp.Router{From: netip.MustParseAddr("fe80::2")}, []wire.Option{
		servers(time.Hour, "fd77::53", "fd77::54", "fd77::55"), domains(time.Hour, "lab.example", "2.example"),
	})
	const want = "[fd77::53 fe80::53%eth0 fd77::54] [lab.example 2.example]"
	if r := l.Resolver(); fmt.Sprint(r.DNS, r.Search) != want {
		t.Errorf("got %v %v, want %s", r.DNS, r.Search, want)
	}
}

// TestFlood checks that what is kept of a thousand routers with a thousand prefixes is short, and that
// the last advertisement of a router counts.
func TestFlood(t *testing.T) {
	l := &Listener{}
	var options []wire.Option
	for i := range 1000 {
		p := &wire.PrefixInformation{PrefixLength: 64, AutonomousAddressConfiguration: true, ValidLifetime: time.Hour}
		p.Prefix = netip.MustParseAddr(fmt.Sprintf("fd77:0:0:%x::", i))
		options = append(options, p)
	}
	for i := range 1000 {
		l.keep(ndp.Router{From: netip.MustParseAddr(fmt.Sprintf("fe80::%x", i+1))}, options)
	}
	for _, want := range []string{"router fe80::1, which is no default router (lifetime 0), advertises fd77::/64, ",
		" and 996 more; router fe80::2", "; 996 advertisements of further routers"} {
		if got := l.Heard(); !strings.Contains(got, want) || len(got) > 1000 {
			t.Errorf("%q is not in %d bytes: %s", want, len(got), got)
		}
	}
	l.keep(ndp.Router{From: netip.MustParseAddr("fe80::1"), Lifetime: time.Hour}, nil)
	if got := l.Heard(); l.Giver() != netip.MustParseAddr("fe80::2") ||
		!strings.HasPrefix(got, "router fe80::1 advertises no prefix; ") {
		t.Errorf("router fe80::1 has changed: %s; router %s", got, l.Giver())
	}
}

// FuzzKeep checks that what is said of any advertisement is one short line, and that its names fit into a
// resolv.conf.
func FuzzKeep(f *testing.F) {
	for _, options := range [][]wire.Option{
		nil, {&wire.PrefixInformation{PrefixLength: 64, Prefix: netip.MustParseAddr("fd77::")}},
		{&wire.RecursiveDNSServer{Lifetime: time.Hour, Servers: []netip.Addr{netip.MustParseAddr("fe80::53")}}},
		{&wire.DNSSearchList{Lifetime: time.Hour, DomainNames: []string{"lab.example", "xn--mnchen-3ya.example"}}},
	} {
		b, err := wire.MarshalMessage(&wire.RouterAdvertisement{RouterLifetime: time.Hour, Options: options})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		m, err := wire.ParseMessage(message)
		ra, is := m.(*wire.RouterAdvertisement)
		if err != nil || !is {
			return
		}
		l := &Listener{}
		l.keep(ndp.Router{From: netip.MustParseAddr("fe80::1"), Lifetime: ra.RouterLifetime}, ra.Options)
		got, addrs := l.Heard(), l.Addrs(netip.IPv6Loopback())
		if got == "" || len(got) > 500 || strings.Contains(got, "\n") || len(addrs) > maxPrefixes {
			t.Errorf("%x gives %q", message, got)
		}
		r := l.Resolver()
		if strings.ContainsAny(strings.Join(r.Search, ""), " \n\t#;") || len(r.DNS) > ipam.MaxServers ||
			len(r.Search) > ipam.MaxSearch {
			t.Errorf("%x gives %q", message, r)
		}
	})
}
