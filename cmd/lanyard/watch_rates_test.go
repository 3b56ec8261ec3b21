package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/cmd/internal/overview"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// TestPrintRates checks the sums of VLANs, the order, and that a screen shows what fits.
func TestPrintRates(t *testing.T) {
	var r overview.Reading
	rates := overview.Rates{}
	for i, vid := range []uint16{50, 60, 50, 60} {
		a := hook.Attachment{ID: verify.ID{byte(i)}, Trunk: "eth0"}
		a.Endpoint.Tags = ether.Tags{{VID: vid}}
		r.Records = append(r.Records, a)
		rates[a.ID.String()] = overview.Rate{Out: float64(1000 * (i + 1)), In: 1}
	}
	for i, id := range []int{0, 1, 2, 2} { // two containers share an interface; the last attachment is not wanted
		r.Rows = append(r.Rows, overview.Row{Container: "c" + string(rune('0'+i)), Attachment: r.Records[id].ID.String()})
	}
	var out bytes.Buffer
	if err := printRates(&out, r, rates, 0); err != nil {
		t.Fatal(err)
	}
	var words []string
	for line := range strings.Lines(out.String()) {
		words = append(words, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"TRUNK VLAN INTERFACES OUT IN", "eth0 50 2 4 kB/s 2 B/s", "eth0 60 1 2 kB/s 1 B/s", "",
		"CONTAINER NETWORK ADDRESS VLAN VERDICT OUT IN ANOMALIES",
		"c2 - - - - 3 kB/s 1 B/s 0", "c3 - - - - 3 kB/s 1 B/s 0", "c1 - - - - 2 kB/s 1 B/s 0", "c0 - - - - 1 kB/s 1 B/s 0",
	}
	if strings.Join(words, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", words, want)
	}
	whole := out.String()
	out.Reset()
	if err := printRates(&out, r, rates, 4); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 3 || !strings.HasPrefix(clearScreen+whole, got) {
		t.Errorf("a screen of four lines shows %q", got)
	}
}
