package attach

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// TestChoice checks which address of a share is chosen: the first from the start on that nothing speaks
// against, one in quarantine only if there is no other, and none that a container, a station on the LAN,
// another host or the definition has.
func TestChoice(t *testing.T) {
	a := netip.MustParseAddr
	now := boottime.Now()
	set := func(addrs ...netip.Addr) map[netip.Addr]bool {
		m := map[netip.Addr]bool{}
		for _, addr := range addrs {
			m[addr] = true
		}
		return m
	}
	p := ipam.Pool{Subnet: netip.MustParsePrefix("192.168.50.0/24"),
		Reserved: map[netip.Addr]string{a("192.168.50.1"): "gateway"}}
	ranges := []netip.Prefix{netip.MustParsePrefix("192.168.50.0/29")} // .2 to .7 are usable
	outage := errors.New("etcd is out of reach")
	for _, c := range []struct {
		name   string
		choice choice
		start  string
		want   string // "" for none
	}{
		{name: "the first", want: "192.168.50.2"},
		{name: "from a start", start: "192.168.50.5", want: "192.168.50.5"},
		{name: "from the end on", start: "192.168.50.7", choice: choice{used: set(a("192.168.50.7"))}, want: "192.168.50.2"},
		{name: "in use", choice: choice{used: set(a("192.168.50.2"), a("192.168.50.3"))}, want: "192.168.50.4"},
		{name: "another host's", choice: choice{share: ipam.Share{Except: []netip.Addr{a("192.168.50.2")}}},
			want: "192.168.50.3"},
		{name: "declined", choice: choice{declined: map[netip.Addr]boottime.Instant{
			a("192.168.50.2"): now.Add(time.Minute), a("192.168.50.3"): now.Add(-time.Minute),
		}}, want: "192.168.50.3"},
		{name: "in quarantine", choice: choice{idle: set(a("192.168.50.2"))}, want: "192.168.50.3"},
		{name: "only one in quarantine", choice: choice{idle: set(a("192.168.50.6")), used: set(a("192.168.50.2"),
			a("192.168.50.3"), a("192.168.50.4"), a("192.168.50.5"), a("192.168.50.7"))}, want: "192.168.50.6"},
		{name: "none", choice: choice{used: set(a("192.168.50.2"), a("192.168.50.3"), a("192.168.50.4"), a("192.168.50.5"),
			a("192.168.50.6"), a("192.168.50.7"))}},
	} {
		c.choice.now, c.choice.share.Ranges = now, ranges
		start := netip.Addr{}
		if c.start != "" {
			start = a(c.start)
		}
		got, err := c.choice.next(p, start, outage)
		switch {
		case c.want == "" && (!errors.Is(err, ipam.ErrPoolFull) || !errors.Is(err, outage)):
			t.Errorf("%s: %v, %v", c.name, got, err)
		case c.want != "" && (err != nil || got.String() != c.want):
			t.Errorf("%s: %v, %v, want %s", c.name, got, err, c.want)
		}
	}
	outside, err := (&choice{share: ipam.Share{Ranges: ranges}, now: now}).next(p, a("192.168.50.99"), outage)
	again, _ := (&choice{share: ipam.Share{Ranges: ranges}, now: now}).next(p, a("192.168.50.99"), outage)
	if err != nil || !ranges[0].Contains(outside) || again != outside {
		t.Errorf("from a start outside of the share: %v and %v, %v", outside, again, err)
	}
}
