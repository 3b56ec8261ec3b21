package network

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/ipam"
)

// TestHostSlice checks the parts of a range: together they are the range, no two overlap, and their
// sizes differ by one address at most.
func TestHostSlice(t *testing.T) {
	for word, want := range map[string]string{
		"192.168.50.0/24 2/8":   "[192.168.50.32/27]",
		"192.168.50.128/25 1/1": "[192.168.50.128/25]",
		"192.168.50.0/29 2/3":   "[192.168.50.2/31 192.168.50.4/32]",
		"192.168.50.0/30 4/4":   "[192.168.50.3/32]",
		"192.168.50.0/30 1/5":   "[]",
		"fd50::/64 3/16":        "[fd50::2000:0:0:0/68]",
		"0.0.0.0/0 2/2":         "[128.0.0.0/1]",
	} {
		var p string
		var s HostSlice
		if _, err := fmt.Sscanf(word, "%s %d/%d", &p, &s.Number, &s.Hosts); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(s.Of(netip.MustParsePrefix(p))); got != want {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
	subnet := netip.MustParsePrefix("192.168.50.0/24")
	for _, parts := range []int64{1, 2, 3, 7, 8, 13, 100, 255, 256} {
		var all []netip.Prefix
		for n := int64(1); n <= parts; n++ {
			own, size := HostSlice{n, parts}.Of(subnet), int64(0)
			for _, p := range own {
				size += 1 << (32 - p.Bits())
			}
			if size < 256/parts || size > 256/parts+1 {
				t.Errorf("part %d of %d has %d addresses: %v", n, parts, size, own)
			}
			all = append(all, own...)
		}
		whole := ipam.Pool{Subnet: subnet, Ranges: all}
		if err := whole.Validate(); err != nil { // ranges that overlap
			t.Errorf("%d parts: %v", parts, err)
		}
		for a := subnet.Addr(); subnet.Contains(a); a = a.Next() {
			if !whole.InRanges(a) {
				t.Errorf("%d parts: %s is in none", parts, a)
			}
		}
	}
}
