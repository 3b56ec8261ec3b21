package dhcp

import (
	"encoding/hex"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

var (
	mac    = ether.MAC{2, 0, 0, 0, 0, 9}
	server = ether.MAC{2, 0, 0, 0, 0, 1}
)

// good are the options of a usable acknowledgement, by their codes, in hexadecimal digits.
var good = map[uint8]string{53: "05", 54: "c0a83201", 1: "ffffff00", 3: "c0a83201", 51: "00000e10"}

// acknowledgement returns a server's answer with the options of good, changed by others. "" removes an
// option.
func acknowledgement(tb testing.TB, addr string, others map[uint8]string) *dhcpv4.DHCPv4 {
	tb.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(mac.Hardware()), dhcpv4.WithYourIP(net.ParseIP(addr)))
	if err != nil {
		tb.Fatal(err)
	}
	m.OpCode, m.TransactionID = dhcpv4.OpcodeBootReply, dhcpv4.TransactionID{1, 2, 3, 4}
	for _, options := range []map[uint8]string{good, others} {
		for code, digits := range options {
			value, err := hex.DecodeString(digits)
			if err != nil {
				tb.Fatal(err)
			}
			m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value))
			if digits == "" {
				m.Options.Del(dhcpv4.GenericOptionCode(code))
			}
		}
	}
	return m
}

// TestLeaseOf checks what is read from an answer.
func TestLeaseOf(t *testing.T) {
	now := boottime.Instant(1000)
	prefix := netip.MustParsePrefix
	base := Lease{
		Addr: prefix("192.168.50.9/24"), Server: netip.MustParseAddr("192.168.50.1"),
		Gateway: netip.MustParseAddr("192.168.50.1"),
		Renew:   now.Add(1800 * time.Second), Rebind: now.Add(3150 * time.Second), Expires: now.Add(3600 * time.Second),
	}
	for name, c := range map[string]struct {
		options map[uint8]string
		given   Given
		want    func(*Lease)
	}{
		"what a server must send": {want: func(*Lease) {}},
		"no gateway":              {map[uint8]string{3: ""}, Given{}, func(l *Lease) { l.Gateway = netip.Addr{} }},
		"classless routes instead of a router": {map[uint8]string{121: "00c0a832fe" + "080ac0a83207" + "18c0a83200000000"},
			Given{}, func(l *Lease) {
				l.Gateway = netip.MustParseAddr("192.168.50.254")
				l.Routes = []Route{{prefix("10.0.0.0/8"), netip.MustParseAddr("192.168.50.7")}}
			}},
		"Microsoft's code, and a route on the link": {map[uint8]string{249: "180a090000000000"}, Given{}, func(l *Lease) {
			l.Gateway, l.Routes = netip.Addr{}, []Route{{prefix("10.9.0.0/24"), netip.Addr{}}}
		}},
		"routes in any order": {map[uint8]string{249: "180a090000000000" + "180a080000000000"}, Given{}, func(l *Lease) {
			l.Gateway = netip.Addr{}
			l.Routes = []Route{{prefix("10.8.0.0/24"), netip.Addr{}}, {prefix("10.9.0.0/24"), netip.Addr{}}}
		}},
		"MTU, T1 and T2": {map[uint8]string{26: "0578", 58: "00000010", 59: "00000020"}, Given{}, func(l *Lease) {
			l.MTU, l.Renew, l.Rebind = 1400, now.Add(16*time.Second), now.Add(32*time.Second)
		}},
		"T1 after T2": {map[uint8]string{58: "00000020", 59: "00000010"}, Given{}, func(*Lease) {}},
		"a lease that does not end": {map[uint8]string{51: "ffffffff"}, Given{}, func(l *Lease) {
			l.Renew, l.Rebind, l.Expires = 0, 0, 0
		}},
		"a lease of 68 years": {map[uint8]string{51: "7fffffff"}, Given{}, func(l *Lease) {
			const second = boottime.Instant(time.Second)
			l.Renew, l.Rebind, l.Expires = now+second/2*0x7fffffff, now+second/8*7*0x7fffffff, now+second*0x7fffffff
		}},
		"names": {map[uint8]string{6: "c0a83205" + "00000000", 119: "036c616e076578616d706c6500" + "036120620000"}, Given{},
			func(l *Lease) {
				l.DNS, l.Search = []netip.Addr{netip.MustParseAddr("192.168.50.5")}, []string{"lan.example"}
			}},
		"a domain that would add a line": {map[uint8]string{15: hex.EncodeToString([]byte("lan\nnameserver 6.6.6.6"))},
			Given{}, func(*Lease) {}},
		"the network's subnet": {map[uint8]string{1: ""}, Given{Subnet: prefix("192.168.0.0/16")}, func(l *Lease) {
			l.Addr = prefix("192.168.50.9/16")
		}},
		"a gateway on the link": {map[uint8]string{3: "cb007101"}, Given{OnLink: true}, func(l *Lease) {
			l.Gateway = netip.MustParseAddr("203.0.113.1")
		}},
	} {
		want := base
		c.want(&want)
		got, err := leaseOf(acknowledgement(t, "192.168.50.9", c.options), c.given, now)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

// TestBadInput checks that an answer that no container could work with is refused with one line.
func TestBadInput(t *testing.T) {
	for _, c := range []struct {
		addr    string
		options map[uint8]string
		want    string
	}{
		{"0.0.0.0", nil, "offers address 0.0.0.0, which no host can have"},
		{"255.255.255.255", nil, "offers address 255.255.255.255"},
		{"127.0.0.1", nil, "offers address 127.0.0.1"},
		{"224.0.0.9", nil, "offers address 224.0.0.9"},
		{"192.168.50.0", nil, "offers address 192.168.50.0, which no host can have in subnet 192.168.50.0/24"},
		{"192.168.50.255", nil, "offers address 192.168.50.255"},
		{"192.168.50.1", nil, "offers address 192.168.50.1, which is also the gateway"},
		{"", map[uint8]string{54: ""}, "sends no server identifier"},
		{"", map[uint8]string{54: "c0a832"}, "sends server identifier 0xc0a832"},
		{"", map[uint8]string{54: "00000000"}, "sends server identifier 0x00000000"},
		{"", map[uint8]string{1: ""}, "sends no subnet mask"},
		{"", map[uint8]string{1: "ffff00"}, "sends 0xffff00 as subnet mask"},
		{"", map[uint8]string{1: "ff00ff00"}, "sends 0xff00ff00 as subnet mask"},
		{"", map[uint8]string{1: "00000000"}, "sends 0x00000000 as subnet mask"},
		{"", map[uint8]string{1: "ffffffc0", 3: "c0a832fe"},
			"sends gateway 192.168.50.254, which is outside of subnet 192.168.50.0/26"},
		{"", map[uint8]string{3: "00000000"}, "sends gateway 0.0.0.0"},
		{"", map[uint8]string{3: "c0a83209"}, "offers address 192.168.50.9, which is also the gateway"},
		{"", map[uint8]string{3: "c0a832"}, "sends routers 0xc0a832"},
		{"", map[uint8]string{51: ""}, "sends no lease time"},
		{"", map[uint8]string{51: "00000000"}, "offers a lease of 0x00000000 seconds"},
		{"", map[uint8]string{51: "00000009"}, "use at least 10"},
		{"", map[uint8]string{51: "0e10"}, "offers a lease of 0x0e10 seconds"},
		{"", map[uint8]string{26: "0043"}, "sends MTU 0x0043"},
		{"", map[uint8]string{26: "05dc00"}, "sends MTU 0x05dc00"},
		{"", map[uint8]string{121: "21c0a83201"}, "sends classless routes"},
		{"", map[uint8]string{121: "080a"}, "sends classless routes"},
		{"", map[uint8]string{121: strings.Repeat("200a0000ffc0a83201", 28) + "0000000000"},
			"default route without a gateway"},
		{"", map[uint8]string{249: "080acb007101"}, "sends router of 10.0.0.0/8 203.0.113.1, which is outside"},
	} {
		if c.addr == "" {
			c.addr = "192.168.50.9"
		}
		_, err := leaseOf(acknowledgement(t, c.addr, c.options), Given{}, boottime.Now())
		if err == nil || !strings.HasPrefix(err.Error(), c.want) && !strings.Contains(err.Error(), c.want) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%s with %v: got %v, want %q", c.addr, c.options, err, c.want)
		}
	}
}

// TestHostname checks that only DNS labels are sent.
func TestHostname(t *testing.T) {
	for name, want := range map[string]string{
		"web-1": "web-1", "web_1.prod": "web-1-prod", "-x-": "x", "ä\n": "", "": "",
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := Hostname(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

// answerFrame returns a frame with a server's answer.
func answerFrame(message []byte) []byte {
	b := frame(way{server, mac, netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("192.168.50.9")}, message)
	udp := b[etherSize+ip4Size:]
	udp[0], udp[1], udp[2], udp[3] = 0, serverPort, 0, clientPort
	return b
}

// TestDecode checks which frames are answers.
func TestDecode(t *testing.T) {
	m := acknowledgement(t, "192.168.50.9", nil)
	b := answerFrame(m.ToBytes())
	if a := decode(b, m); a.err != nil || a.DHCPv4 == nil || a.from != server {
		t.Errorf("got %+v", a)
	}
	for i := range b { // no part of it is enough
		if a := decode(b[:i], m); a.DHCPv4 != nil {
			t.Errorf("%d of %d bytes are an answer", i, len(b))
		}
	}
	other := *m
	other.TransactionID[0]++
	if a := decode(b, &other); a.DHCPv4 != nil || a.err != nil {
		t.Errorf("the answer of another transaction: %+v", a)
	}
	garbage := append(m.ToBytes()[:240], 1, 200, 3) // an option that is longer than the message
	if a := decode(answerFrame(garbage), m); a.DHCPv4 != nil || a.err == nil {
		t.Errorf("garbage: %+v", a)
	}
}

// FuzzAnswer checks that no frame of a server makes the client fail, and that a lease that it accepts
// can be configured: an address, gateway and routes of hosts, and names for resolv.conf.
func FuzzAnswer(f *testing.F) {
	m := acknowledgement(f, "192.168.50.9", map[uint8]string{
		121: "00c0a832fe080ac0a83207", 26: "0578", 6: "c0a83205", 119: "036c616e00", 58: "00000010", 59: "00000020",
	})
	f.Add(answerFrame(m.ToBytes()), false)
	f.Add(m.ToBytes(), true)
	f.Add(append(m.ToBytes()[:240], 1, 200, 3), true)
	f.Fuzz(func(t *testing.T, b []byte, message bool) {
		if message {
			b = answerFrame(b[:min(len(b), 1<<15)])
		}
		a := decode(b, m)
		if a.DHCPv4 == nil {
			return
		}
		_ = because(a.DHCPv4)
		l, err := leaseOf(a.DHCPv4, Given{}, boottime.Now())
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %v", err)
			}
			return
		}
		if !isHost(l.Addr.Addr()) || l.Addr.Bits() < 1 || l.Gateway == l.Addr.Addr() ||
			l.Gateway.IsValid() && !l.Addr.Masked().Contains(l.Gateway) || len(l.Routes) > maxRoutes {
			t.Errorf("lease %+v", l)
		}
		for _, r := range l.Routes {
			if r.Dst != r.Dst.Masked() || r.Dst.Bits() == 0 || r.Via.IsValid() && !l.Addr.Masked().Contains(r.Via) {
				t.Errorf("route %+v of lease %+v", r, l)
			}
		}
		for _, d := range l.Search {
			if strings.ContainsAny(d, " \t\n#;") {
				t.Errorf("search domain %q", d)
			}
		}
		if l.Expires != 0 && (l.Renew > l.Rebind || l.Rebind > l.Expires) {
			t.Errorf("times of %+v", l)
		}
	})
}
