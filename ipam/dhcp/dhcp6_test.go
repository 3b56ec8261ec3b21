package dhcp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/lanyard-net/lanyard/ipam/boottime"
)

const infinite = infinity

// reply6 returns a server's reply to the client with mac, with addresses that are preferred and valid for
// those times.
func reply6(tb testing.TB, preferred, valid time.Duration, addrs ...string) *dhcpv6.Message {
	tb.Helper()
	m, err := dhcpv6.NewMessage()
	if err != nil {
		tb.Fatal(err)
	}
	m.MessageType, m.TransactionID = dhcpv6.MessageTypeReply, dhcpv6.TransactionID{1, 2, 3}
	m.AddOption(generic6(dhcpv6.OptionClientID, Client{MAC: mac}.duid()))
	m.AddOption(generic6(dhcpv6.OptionServerID, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 1}))
	ia := &dhcpv6.OptIANA{IaId: Client{MAC: mac}.iaid(), T1: 100 * time.Second, T2: 200 * time.Second}
	for _, a := range addrs {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a), PreferredLifetime: preferred, ValidLifetime: valid})
	}
	m.AddOption(ia)
	return m
}

// ia returns the IA_NA of a message.
func ia(m *dhcpv6.Message) *dhcpv6.OptIANA { return m.Options.OneIANA() }

// answer6Frame returns the frame of a server with a message.
func answer6Frame(message []byte) []byte {
	b := frame6(server, message)
	binary.BigEndian.PutUint16(b[etherSize+ip6Size:], serverPort6)
	binary.BigEndian.PutUint16(b[etherSize+ip6Size+2:], clientPort6)
	return b
}

// TestLeaseOf6 checks what is read from a reply.
func TestLeaseOf6(t *testing.T) {
	now, addr := boottime.Instant(1000), netip.MustParseAddr("fd78::9")
	base := Lease{
		Addr: netip.PrefixFrom(addr, 128), ServerID: DUID{0, 3, 0, 1, 2, 0, 0, 0, 0, 1},
		Renew: now.Add(100 * time.Second), Rebind: now.Add(200 * time.Second), Expires: now.Add(600 * time.Second),
		Deprecated: now.Add(300 * time.Second),
	}
	const preferred, valid = 300 * time.Second, 600 * time.Second
	for name, c := range map[string]struct {
		edit func(m *dhcpv6.Message)
		old  netip.Prefix
		want func(l *Lease)
	}{
		"plain": {},
		"the same address": {old: netip.PrefixFrom(addr, 64),
			want: func(l *Lease) { l.Addr = netip.PrefixFrom(addr, 64) }},
		"another address":   {old: netip.MustParsePrefix("fd78::8/64")},
		"a further address": {edit: func(m *dhcpv6.Message) { addAddr(m, "fd78::a", valid) }},
		"the ended old one": {old: netip.MustParsePrefix("fd78::a/64"),
			edit: func(m *dhcpv6.Message) { addAddr(m, "fd78::a", 0) }},
		"a useless one before": {edit: func(m *dhcpv6.Message) { addAddrBefore(m, "fe80::a", valid) }},
		"the old one after": {old: netip.MustParsePrefix("fd78::a/64"),
			edit: func(m *dhcpv6.Message) { addAddr(m, "fd78::a", valid) },
			want: func(l *Lease) { l.Addr = netip.MustParsePrefix("fd78::a/64") }},
		"times of the client's choice": {edit: func(m *dhcpv6.Message) { ia(m).T1, ia(m).T2 = 0, 0 },
			want: func(l *Lease) { l.Renew, l.Rebind = now.Add(150*time.Second), now.Add(240*time.Second) }},
		"times beyond the lease": {edit: func(m *dhcpv6.Message) { ia(m).T1, ia(m).T2 = infinite, infinite },
			want: func(l *Lease) { l.Renew, l.Rebind = now.Add(150*time.Second), now.Add(240*time.Second) }},
		"a deprecated address": {edit: func(m *dhcpv6.Message) { ia(m).T1, first(m).PreferredLifetime = 0, 0 },
			want: func(l *Lease) {
				l.Renew, l.Rebind, l.Deprecated = now.Add(300*time.Second), now.Add(480*time.Second), now
			}},
		"no end": {edit: func(m *dhcpv6.Message) { first(m).ValidLifetime, first(m).PreferredLifetime = infinite, infinite },
			want: func(l *Lease) { l.Renew, l.Rebind, l.Expires, l.Deprecated = 0, 0, 0, 0 }},
		"136 years": {edit: func(m *dhcpv6.Message) {
			ia(m).T1, first(m).ValidLifetime, first(m).PreferredLifetime = 0, 0xfffffffe*time.Second, 0xfffffffe*time.Second
		}, want: func(l *Lease) {
			const second = boottime.Instant(time.Second)
			l.Renew, l.Rebind = now+second/2*0xfffffffe, now+second/5*4*0xfffffffe
			l.Expires, l.Deprecated = now+second*0xfffffffe, now+second*0xfffffffe
		}},
		"names": {edit: func(m *dhcpv6.Message) {
			dhcpv6.WithDNS(net.ParseIP("fe80::1"), net.ParseIP("fd78::53"))(m)
			dhcpv6.WithDomainSearchList("lan.example", "bad domain")(m)
		}, want: func(l *Lease) {
			l.DNS, l.Search = []netip.Addr{netip.MustParseAddr("fd78::53")}, []string{"lan.example"}
		}},
	} {
		m, want := reply6(t, preferred, valid, "fd78::9"), base
		if c.edit != nil {
			c.edit(m)
		}
		if c.want != nil {
			c.want(&want)
		}
		decoded, err := dhcpv6.MessageFromBytes(m.ToBytes())
		if err != nil {
			t.Fatal(err)
		}
		got, err := leaseOf6(decoded, Client{MAC: mac}.iaid(), c.old, now)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// first returns the first address of a message.
func first(m *dhcpv6.Message) *dhcpv6.OptIAAddress { return ia(m).Options.OneAddress() }

func addAddr(m *dhcpv6.Message, a string, valid time.Duration) {
	ia(m).Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a), PreferredLifetime: valid / 2, ValidLifetime: valid})
}

func addAddrBefore(m *dhcpv6.Message, a string, valid time.Duration) {
	addAddr(m, a, valid)
	o := ia(m).Options.Options
	o[0], o[len(o)-1] = o[len(o)-1], o[0]
}

// TestBadInput6 checks that each unusable answer of a server is refused with the reason.
func TestBadInput6(t *testing.T) {
	status := func(code iana.StatusCode) *dhcpv6.OptStatusCode {
		return &dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: "sorry\n"}
	}
	set := func(a string) func(*dhcpv6.Message) {
		return func(m *dhcpv6.Message) { first(m).IPv6Addr = net.ParseIP(a) }
	}
	for name, c := range map[string]struct {
		edit    func(*dhcpv6.Message)
		want    string
		refused bool
	}{
		"unspecified": {set("::"), "offers address ::, which no host can have", false},
		"loopback":    {set("::1"), "which no host can have", false},
		"multicast":   {set("ff02::1"), "which no host can have", false},
		"link-local":  {set("fe80::9"), "which no host can have", false},
		"IPv4-mapped": {set("::ffff:192.168.50.9"), "which no host can have", false},
		"no address":  {func(m *dhcpv6.Message) { ia(m).Options.Options = nil }, "sends no address", false},
		"no IA_NA":    {func(m *dhcpv6.Message) { ia(m).IaId[0]++ }, "no addresses for the container", false},
		"no server": {func(m *dhcpv6.Message) { m.Options.Del(dhcpv6.OptionServerID) },
			"sends no server identifier", false},
		"long server": {func(m *dhcpv6.Message) {
			m.UpdateOption(generic6(dhcpv6.OptionServerID, make([]byte, 131)))
		}, "sends no server identifier, or a malformed one", false},
		"zero lifetime": {func(m *dhcpv6.Message) { first(m).ValidLifetime, first(m).PreferredLifetime = 0, 0 },
			"address fd78::9 with a valid lifetime of 0", false},
		"short lifetime": {func(m *dhcpv6.Message) {
			first(m).ValidLifetime, first(m).PreferredLifetime = 5*time.Second, 5*time.Second
		}, "a lease of 5s: use at least 10s", false},
		"preferred": {func(m *dhcpv6.Message) { first(m).PreferredLifetime = time.Hour }, "longer than it is valid", false},
		"T1":        {func(m *dhcpv6.Message) { ia(m).T1 = 300 * time.Second }, "T1 of 5m0s, which is after T2", false},
		"NoAddrsAvail": {func(m *dhcpv6.Message) { ia(m).Options.Add(status(iana.StatusNoAddrsAvail)) },
			`no address for the container (NoAddrsAvail: "sorry\n")`, true},
		"NoAddrsAvail of the message": {func(m *dhcpv6.Message) { m.AddOption(status(iana.StatusNoAddrsAvail)) },
			"no address for the container (NoAddrsAvail", true},
		"NoBinding":  {func(m *dhcpv6.Message) { ia(m).Options.Add(status(iana.StatusNoBinding)) }, "does not know", true},
		"NotOnLink":  {func(m *dhcpv6.Message) { m.AddOption(status(iana.StatusNotOnLink)) }, "of another link", true},
		"UnspecFail": {func(m *dhcpv6.Message) { m.AddOption(status(iana.StatusUnspecFail)) }, "fails to give", false},
	} {
		m := reply6(t, 300*time.Second, 600*time.Second, "fd78::9")
		c.edit(m)
		decoded, err := dhcpv6.MessageFromBytes(m.ToBytes())
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaseOf6(decoded, Client{MAC: mac}.iaid(), netip.Prefix{}, 0)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") ||
			errors.Is(err, ErrRefused) != c.refused {
			t.Errorf("%s: %v, want %q; refused: %v", name, err, c.want, c.refused)
		}
	}
	ended := reply6(t, 0, 0, "fd78::9")
	old := netip.MustParsePrefix("fd78::9/64")
	if _, err := leaseOf6(ended, Client{MAC: mac}.iaid(), old, 0); !errors.Is(err, ErrRefused) {
		t.Errorf("the end of a lease: %v", err)
	}
}

// asked6 is the message that reply6 answers.
func asked6(tb testing.TB) *dhcpv6.Message {
	tb.Helper()
	m, err := (&conn6{client: Client{MAC: mac, Hostname: "web"}}).message(dhcpv6.MessageTypeSolicit, Lease{})
	if err != nil {
		tb.Fatal(err)
	}
	m.TransactionID = dhcpv6.TransactionID{1, 2, 3}
	return m
}

// TestDecode6 checks which frames are answers.
func TestDecode6(t *testing.T) {
	m := asked6(t)
	good := reply6(t, 300*time.Second, 600*time.Second, "fd78::9").ToBytes()
	a := decode6(answer6Frame(good), m)
	if a.Message == nil || a.mac != server || a.from != server.LinkLocal() || a.err != nil {
		t.Errorf("a good answer: %+v", a)
	}
	if a := decode6(answer6Frame(append(good, 0, 23, 0, 9, 1)), m); a.err == nil || a.Message != nil {
		t.Errorf("a malformed option: %+v", a)
	}
	for name, edit := range map[string]func(b []byte) []byte{
		"another transaction": func(b []byte) []byte { b[1]++; return b },
		"another client":      func(b []byte) []byte { b[4+4+9]++; return b },
		"a request":           func(b []byte) []byte { b[0] = 3; return b },
		"nothing":             func([]byte) []byte { return nil },
	} {
		b := edit(append([]byte(nil), good...))
		if a := decode6(answer6Frame(b), m); a.Message != nil || a.err != nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
	whole := answer6Frame(good)
	for i := range whole {
		if a := decode6(whole[:i], m); a.Message != nil || a.err != nil {
			t.Fatalf("the first %d bytes: %+v", i, a)
		}
	}
}

// TestRecordedLease6 checks that a lease is the same after it was recorded.
func TestRecordedLease6(t *testing.T) {
	l, err := leaseOf6(reply6(t, 300*time.Second, 600*time.Second, "fd78::9"), Client{MAC: mac}.iaid(), netip.Prefix{}, 7)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var got Lease
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("%s is read as %+v, %v; want %+v", text, got, err, l)
	}
}

// FuzzAnswer6 checks that no frame of a station makes the client fail, or get an address that no host can
// have.
func FuzzAnswer6(f *testing.F) {
	m := asked6(f)
	good := reply6(f, 300*time.Second, 600*time.Second, "fd78::9", "fd78::a")
	dhcpv6.WithDNS(net.ParseIP("fd78::53"))(good)
	dhcpv6.WithDomainSearchList("lan.example")(good)
	f.Add(answer6Frame(good.ToBytes()))
	f.Add(answer6Frame(append(good.ToBytes(), 0, 13, 0, 3, 0, 2, 'x')))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := decode6(b, m)
		if a.Message == nil {
			return
		}
		l, err := leaseOf6(a.Message, Client{MAC: mac}.iaid(), netip.MustParsePrefix("fd78::a/64"), 0)
		switch {
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("an error of several lines: %v", err)
		case err == nil && (!isHost6(l.Addr.Addr()) || l.Rebind < l.Renew || l.Expires < l.Rebind || len(l.ServerID) == 0):
			t.Errorf("a lease that cannot be used: %+v", l)
		}
	})
}
