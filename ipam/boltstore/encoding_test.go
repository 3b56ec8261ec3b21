package boltstore_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// FuzzRow checks that decoding a row gives the encoded lease, whatever its texts are, and that a
// truncated row is damage.
func FuzzRow(f *testing.F) {
	for _, text := range []string{
		"", "web", "6553f100", "6553F100", "655", "02:42:0a:20:00:01", "02:42:0A:20:00:01", "02-42-0a-20-00-01",
		"0242.0a20.0001", "02:42:0a:20:00:01:00:02", strings.Repeat("ab", 200), "\x00\xff",
	} {
		f.Add(text, int64(0), uint8(1))
		f.Add(text, int64(1_700_000_000_000_000_001), uint8(9))
	}
	f.Fuzz(func(t *testing.T, text string, until int64, cut uint8) {
		l := ipam.Lease{
			Addr: netip.MustParseAddr("10.32.0.1"), Owner: ipam.Owner{Attachment: text, Network: text + "x", Interface: "eth0"},
			Name: text, MAC: text, State: ipam.Held,
		}
		if until != 0 {
			l.State, l.Until = ipam.Quarantined, time.Unix(0, until)
		}
		key, row := l.Addr.AsSlice(), boltstore.Encode(l)
		if got, err := boltstore.Decode(key, row); err != nil || got != l {
			t.Errorf("%+v was decoded as %+v, %v", l, got, err)
		}
		n := int(cut) % len(row)
		if got, err := boltstore.Decode(key, row[:n]); err == nil {
			t.Errorf("truncated after %d of %d bytes: %+v", n, len(row), got)
		}
		if got, err := boltstore.Decode(key, append(row, 0)); err == nil {
			t.Errorf("one byte more: %+v", got)
		}
	})
}
