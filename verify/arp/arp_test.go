package arp_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify/arp"
)

var (
	mac    = ether.MAC{0x02, 0x42, 192, 168, 50, 2}
	peer   = ether.MAC{0x0a, 0, 0, 50, 0, 1}
	addr   = netip.MustParseAddr("192.168.50.2")
	gw     = netip.MustParseAddr("192.168.50.1")
	noAddr = netip.IPv4Unspecified()
)

const (
	header  = "ffffffffffff 0242c0a83202 0806 "
	padding = " 000000000000000000000000000000000000"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestFrames compares every frame with its bytes, written by hand from RFC 826.
func TestFrames(t *testing.T) {
	probe, perr := arp.Probe(mac, gw)
	request, rerr := arp.Request(mac, addr, gw)
	announce, aerr := arp.Announce(mac, addr)
	for _, tt := range []struct {
		name  string
		frame []byte
		err   error
		want  string
	}{
		{"probe", probe, perr, "0001 0800 06 04 0001 0242c0a83202 00000000 000000000000 c0a83201"},
		{"request", request, rerr, "0001 0800 06 04 0001 0242c0a83202 c0a83202 000000000000 c0a83201"},
		{"announce", announce, aerr, "0001 0800 06 04 0001 0242c0a83202 c0a83202 000000000000 c0a83202"},
	} {
		if tt.err != nil {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
		if want := unhex(t, header+tt.want+padding); !bytes.Equal(tt.frame, want) {
			t.Errorf("%s:\n got %x\nwant %x", tt.name, tt.frame, want)
		}
	}
}

func TestWrongFamily(t *testing.T) {
	for _, bad := range []netip.Addr{netip.MustParseAddr("fd50::1"), netip.MustParseAddr("::ffff:192.168.50.1"), {}} {
		if _, err := arp.Probe(mac, bad); err == nil {
			t.Errorf("a probe for %q was built", bad)
		}
		if _, err := arp.Request(mac, bad, gw); err == nil {
			t.Errorf("a request from %q was built", bad)
		}
	}
}

const reply = "0242c0a83202 0a0000320001 0806 0001 0800 06 04 0002 0a0000320001 c0a83201 0242c0a83202 00000000"

func TestParse(t *testing.T) {
	got, err := arp.Parse(unhex(t, reply))
	if err != nil {
		t.Fatal(err)
	}
	want := arp.Packet{Destination: mac, Source: peer, Reply: true, Sender: peer, SenderIP: gw, Target: mac,
		TargetIP: noAddr}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

var zeros16 = strings.Repeat("00", 16)

var malformed = map[string]string{
	"empty":        "",
	"cut Ethernet": "ffffffffffff 0242c0a83202 08",
	"no ARP":       header,
	"IPv4": "ffffffffffff 0242c0a83202 0800 0001 0800 06 04 0001 0242c0a83202" +
		" 00000000 000000000000 c0a83201",
	"cut addresses":      header + "0001 0800 06 04 0001 0242c0a83202 00000000 000000000000 c0a832",
	"not Ethernet":       header + "0006 0800 06 04 0001 0242c0a83202 00000000 000000000000 c0a83201",
	"not IPv4":           header + "0001 86dd 06 04 0001 0242c0a83202 00000000 000000000000 c0a83201",
	"long MAC":           header + "0001 0800 08 04 0001 0242c0a832020000 00000000 0000000000000000 c0a83201",
	"long address":       header + "0001 0800 06 10 0001 0242c0a83202" + zeros16 + "000000000000" + zeros16,
	"odd address length": header + "0001 0800 06 05 0001 0242c0a83202 0000000000 000000000000 c0a8320100",
	"lengths overflow":   header + "0001 0800 ff ff 0001" + strings.Repeat("00", 600),
	"RARP operation":     header + "0001 0800 06 04 0003 0242c0a83202 00000000 000000000000 c0a83201",
	"no sender":          header + "0001 0800 06 04 0002 000000000000 c0a83201 000000000000 c0a83201",
	"tagged": "ffffffffffff 0242c0a83202 8100 0032 0806 0001 0800 06 04 0001 0242c0a83202 00000000 " +
		"000000000000 c0a83201",
	"tag cut": "ffffffffffff 0242c0a83202 8100 00",
	"two tags, one 0x88a8": "ffffffffffff 0242c0a83202 88a8 0064 8100 0032 0806" +
		"0001 0800 06 04 0001 0242c0a83202 00000000 000000000000 c0a83201",
}

func TestMalformed(t *testing.T) {
	for name, frame := range malformed {
		if p, err := arp.Parse(unhex(t, frame)); err == nil {
			t.Errorf("%s: read as %+v", name, p)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error of several lines: %v", name, err)
		}
	}
}

// FuzzParse checks that Parse survives every frame a station can send, and that a packet that it
// has read is written back as it was.
func FuzzParse(f *testing.F) {
	for _, frame := range malformed {
		f.Add(unhex(f, frame))
	}
	f.Add(unhex(f, reply))
	for _, build := range []func(ether.MAC, netip.Addr) ([]byte, error){arp.Probe, arp.Announce} {
		frame, err := build(mac, addr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := arp.Parse(frame)
		if err != nil {
			return
		}
		again, err := p.Frame()
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", p, err)
		}
		n := min(len(frame), 42) // everything but the padding
		if !bytes.Equal(again[:n], frame[:n]) {
			t.Fatalf("written back\n%x for\n%x", again[:n], frame[:n])
		}
	})
}
