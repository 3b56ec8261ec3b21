package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func poolOf(subnet string, ranges ...string) Pool {
	p := Pool{Subnet: netip.MustParsePrefix(subnet)}
	for _, r := range ranges {
		p.Ranges = append(p.Ranges, netip.MustParsePrefix(r))
	}
	return p
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		p    Pool
		want string // "" is valid
	}{
		{poolOf("192.168.50.0/24"), ""},
		{poolOf("192.168.50.0/24", "192.168.50.0/25", "192.168.50.128/25"), ""},
		{poolOf("0.0.0.0/0", "10.0.0.0/8"), ""},
		{poolOf("fd11::/64", "fd11::8000/113"), ""},
		{Pool{}, "not an address and prefix length"},
		{poolOf("192.168.50.9/24"), "did you mean 192.168.50.0/24"},
		{poolOf("::ffff:192.168.50.0/120"), "written as IPv6"},
		{poolOf("192.168.50.0/24", "192.168.50.1/28"), "did you mean 192.168.50.0/28"},
		{poolOf("192.168.50.0/24", "192.168.51.0/28"), "not within subnet"},
		{poolOf("192.168.50.0/24", "192.168.0.0/16"), "not within subnet"},
		{poolOf("0.0.0.0/0", "fd11::/64"), "not within subnet"},
		{poolOf("192.168.50.0/24", "192.168.50.64/26", "192.168.50.0/25"), "192.168.50.64/26 and 192.168.50.0/25 overlap"},
	} {
		err := c.p.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.p, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	p := poolOf("192.168.50.0/24", "192.168.50.0/26")
	p.Reserved = map[netip.Addr]string{netip.MustParseAddr("192.168.50.1"): "gateway"}
	for addr, want := range map[string]string{
		"192.168.50.2":   "",
		"192.168.50.200": "", // outside the range: for an explicit claim
		"192.168.50.0":   "network address",
		"192.168.50.255": "broadcast address",
		"192.168.50.1":   "gateway",
		"192.168.51.2":   "not in subnet",
		"fd11::2":        "not in subnet",
	} {
		err := p.Check(netip.MustParseAddr(addr))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
	}
}

func TestFirstUsable(t *testing.T) {
	for subnet, want := range map[string]string{
		"192.168.50.0/24": "192.168.50.1",
		"192.168.50.9/24": "192.168.50.1",
		"10.0.0.4/31":     "10.0.0.4",
		"10.0.0.4/32":     "10.0.0.4",
		"fd11::/64":       "fd11::1",
		"fd11::4/127":     "fd11::4",
	} {
		if got := FirstUsable(netip.MustParsePrefix(subnet)); got.String() != want {
			t.Errorf("%s: got %s, want %s", subnet, got, want)
		}
	}
}

// addrs returns all addresses of the spans, in order.
func addrs(spans []Span) (all []netip.Addr) {
	for _, s := range spans {
		for a := s.First; a.IsValid() && !s.Last.Less(a); a = a.Next() {
			all = append(all, a)
		}
	}
	return all
}

// small are pools that are small enough to check each address.
var small = []Pool{
	poolOf("10.0.0.0/24"),
	poolOf("10.0.0.0/24", "10.0.0.64/30", "10.0.0.16/31", "10.0.0.255/32"),
	poolOf("10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/25"),
	poolOf("10.0.0.4/30"),
	poolOf("10.0.0.4/31"),
	poolOf("10.0.0.4/32"),
	poolOf("255.255.255.0/24", "255.255.255.252/30"),
	poolOf("fd11::/121", "fd11::40/123"),
	poolOf("fd11::4/126"),
	poolOf("fd11::4/127"),
	poolOf("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"),
}

// TestSpans checks that a search sees every address once, wherever it starts, and begins with the
// first address at or above its start.
func TestSpans(t *testing.T) {
	for _, p := range small {
		all := addrs(p.Spans(netip.Addr{}))
		if !slices.IsSortedFunc(all, netip.Addr.Compare) {
			t.Errorf("%s: not in order: %s", p, all)
		}
		starts := append(addrs([]Span{{p.Subnet.Addr(), Last(p.Subnet)}}), netip.Addr{}, p.Subnet.Addr().Prev(),
			Last(p.Subnet).Next(), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::"))
		for _, start := range starts {
			i := max(0, slices.IndexFunc(all, func(a netip.Addr) bool { return !a.Less(start) }))
			want := slices.Concat(all[i:], all[:i])
			if got := addrs(p.Spans(start)); !slices.Equal(got, want) {
				t.Fatalf("%s from %s: got %s, want %s", p, start, got, want)
			}
		}
	}
}

func TestSize(t *testing.T) {
	for _, p := range small {
		p.Reserved = map[netip.Addr]string{p.Subnet.Addr().Next(): "gateway",
			netip.MustParseAddr("172.16.0.1"): "outside the subnet"}
		n := 0
		for _, a := range addrs(p.Spans(netip.Addr{})) {
			if p.Check(a) == nil {
				n++
			}
		}
		if got := p.Size(); !got.IsInt64() || got.Int64() != int64(n) {
			t.Errorf("%s: got %s, want %d", p, got, n)
		}
	}
}

// TestStart checks that every address of the ranges is the start of some name, and that no other
// address is.
func TestStart(t *testing.T) {
	for _, p := range small {
		seen := map[netip.Addr]bool{}
		for i := range 5000 {
			name := fmt.Sprint("web", i)
			a := p.Start(name)
			if !p.InRanges(a) || a != p.Start(name) {
				t.Fatalf("%s: %q starts at %s and at %s", p, name, a, p.Start(name))
			}
			seen[a] = true
		}
		if n := len(addrs(p.Spans(netip.Addr{}))); len(seen) != n {
			t.Errorf("%s: %d of %d addresses are the start of a name", p, len(seen), n)
		}
	}
}

func TestAddressMAC(t *testing.T) {
	if got := AddressMAC(netip.MustParseAddr("192.168.50.9")).String(); got != "02:42:c0:a8:32:09" {
		t.Errorf("got %s", got)
	}
	if got := AddressMAC(netip.MustParseAddr("fd11::9")); !got.IsZero() {
		t.Errorf("got %s for an IPv6 address", got)
	}
}

func TestDerivedMAC(t *testing.T) {
	seen := map[string]string{}
	for i := range 1000 {
		for _, key := range []string{"host a", "host b"} {
			for _, network := range []string{"web50", "web60"} {
				name := fmt.Sprint(i)
				m := DerivedMAC([]byte(key), network, name)
				if m[0]&3 != 2 || m[0] == 0x02 && m[1] == 0x42 {
					t.Fatalf("%s is not local, not unicast, or of an IPv4 address", m)
				}
				if other, ok := seen[m.String()]; ok {
					t.Fatalf("%s belongs to %s and %s", m, other, key+network+name)
				}
				if again := DerivedMAC([]byte(key), network, name); again.String() != m.String() {
					t.Fatalf("%s the first time, %s the second", m, again)
				}
				seen[m.String()] = key + network + name
			}
		}
	}
}
