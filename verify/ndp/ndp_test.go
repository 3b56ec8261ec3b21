package ndp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

var (
	mac  = ether.MAC{0x02, 0x42, 192, 168, 50, 2}
	peer = ether.MAC{0x0a, 0, 0, 50, 0, 1}
	addr = netip.MustParseAddr("fd50::2")
	gw   = netip.MustParseAddr("fd50::12:3401")
)

const (
	groupMAC = "3333ff123401 0242c0a83202 86dd "
	ip24     = "60000000 0018 3aff "
	ip32     = "60000000 0020 3aff "
	none     = "00000000000000000000000000000000 "
	own      = "fd500000000000000000000000000002 "
	gateway  = "fd500000000000000000000000123401 "
	group    = "ff0200000000000000000001ff123401 "
	nodes    = "ff020000000000000000000000000001 "
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sum sets the checksum of a frame (RFC 8200 §8.1). It adds in another way than the code under
// test, of which it is independent.
func sum(frame []byte) []byte {
	frame = slices.Clone(frame)
	icmp := frame[54:]
	icmp[2], icmp[3] = 0, 0
	pseudo := slices.Concat(frame[22:54], []byte{0, 0, 0, byte(len(icmp)), 0, 0, 0, 58}, icmp)
	if len(pseudo)%2 == 1 {
		pseudo = append(pseudo, 0)
	}
	var total uint64
	for i := 0; i < len(pseudo); i += 2 {
		total += uint64(binary.BigEndian.Uint16(pseudo[i:]))
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(total%0xffff))
	return frame
}

// TestFrames compares every frame with its bytes, written by hand from RFC 4861 §4.
func TestFrames(t *testing.T) {
	probe, perr := ndp.Probe(mac, gw)
	solicit, serr := ndp.Solicit(mac, addr, gw)
	announce, aerr := ndp.Announce(mac, addr)
	for _, tt := range []struct {
		name  string
		frame []byte
		err   error
		want  string
	}{
		{"probe", probe, perr, groupMAC + ip24 + none + group + "87 00 0000 00000000" + gateway},
		{"solicit", solicit, serr, groupMAC + ip32 + own + group + "87 00 0000 00000000" + gateway + "01 01 0242c0a83202"},
		{"announce", announce, aerr, "333300000001 0242c0a83202 86dd" + ip32 + own + nodes +
			"88 00 0000 20000000" + own + "02 01 0242c0a83202"},
	} {
		if tt.err != nil {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
		if want := sum(unhex(t, tt.want)); !bytes.Equal(tt.frame, want) {
			t.Errorf("%s:\n got %x\nwant %x", tt.name, tt.frame, want)
		}
	}
}

func TestGroups(t *testing.T) {
	if got, want := ndp.SolicitedNode(gw), (ether.MAC{0x33, 0x33, 0xff, 0x12, 0x34, 0x01}); got != want {
		t.Errorf("solicited-node group of %s is %s, want %s", gw, got, want)
	}
}

func TestWrongFamily(t *testing.T) {
	for _, bad := range []netip.Addr{netip.MustParseAddr("192.168.50.1"), netip.MustParseAddr("::ffff:192.168.50.1"),
		netip.MustParseAddr("fe80::1%eth0"), {}} {
		if _, err := ndp.Probe(mac, bad); err == nil {
			t.Errorf("a probe for %q was built", bad)
		}
		if _, err := ndp.Solicit(mac, bad, gw); err == nil {
			t.Errorf("a solicitation from %q was built", bad)
		}
		if _, err := ndp.Announce(mac, bad); err == nil {
			t.Errorf("an announcement of %q was built", bad)
		}
	}
}

const (
	toAll  = "333300000001 0a0000320001 86dd "
	advert = toAll + ip32 + gateway + nodes + "88 00 0000 a0000000" + gateway + "02 01 0a0000320001"
)

func TestParse(t *testing.T) {
	want := ndp.Message{
		Destination: ether.MAC{0x33, 0x33, 0, 0, 0, 1}, Source: peer,
		From: gw, To: netip.IPv6LinkLocalAllNodes(), Target: gw,
		Advert: true, Router: true, Override: true, LinkLayer: peer,
	}
	frame := sum(unhex(t, advert))
	for name, frame := range map[string][]byte{"unpadded": frame, "padded": append(slices.Clone(frame), 0, 0, 1)} {
		got, err := ndp.Parse(frame)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

var malformed = map[string]string{
	"IPv4 inside":          toAll + "45000000 0018 3aff" + gateway + nodes + "88 00 0000 20000000" + gateway,
	"payload too long":     toAll + "60000000 0099 3aff" + gateway + nodes + "88 00 0000 20000000" + gateway,
	"payload too short":    toAll + "60000000 0002 3aff" + gateway + nodes + "88 00 0000 20000000" + gateway,
	"hop limit 254":        toAll + "60000000 0018 3afe" + gateway + nodes + "88 00 0000 20000000" + gateway,
	"UDP":                  toAll + "60000000 0018 11ff" + gateway + nodes + "88 00 0000 20000000" + gateway,
	"code 1":               toAll + ip24 + gateway + nodes + "88 01 0000 20000000" + gateway,
	"redirect":             toAll + ip24 + gateway + nodes + "89 00 0000 20000000" + gateway,
	"echo request":         toAll + ip24 + gateway + nodes + "80 00 0000 20000000" + gateway,
	"router advertisement": toAll + ip24 + gateway + nodes + "86 00 0000 20000000" + gateway,
	"target cut": toAll + "60000000 0014 3aff" + gateway + nodes + "88 00 0000 20000000 " +
		"fd500000000000000000000000",
	"target a group":        toAll + ip24 + gateway + nodes + "88 00 0000 20000000" + nodes,
	"target IPv4":           toAll + ip24 + gateway + nodes + "88 00 0000 20000000 00000000000000000000ffffc0a83201",
	"option of length 0":    toAll + ip32 + gateway + nodes + "88 00 0000 20000000" + gateway + "02 00 0a0000320001",
	"option beyond the end": toAll + ip32 + gateway + nodes + "88 00 0000 20000000" + gateway + "02 02 0a0000320001",
	"solicited, to all":     toAll + ip24 + gateway + nodes + "88 00 0000 60000000" + gateway,
	"source a group":        toAll + ip24 + nodes + nodes + "88 00 0000 20000000" + gateway,
	"source IPv4": toAll + ip24 + "00000000000000000000ffffc0a83201" + nodes +
		"88 00 0000 20000000" + gateway,
	"no source MAC": "333300000001 000000000000 86dd" + ip24 + gateway + nodes +
		"88 00 0000 20000000" + gateway,
	"NS from :: with its address": groupMAC + ip32 + none + group + "87 00 0000 00000000" + gateway + "01 01 0242c0a83202",
	"NS from :: to all nodes":     groupMAC + ip24 + none + nodes + "87 00 0000 00000000" + gateway,
	"ARP": "333300000001 0a0000320001 0806" + ip24 + gateway + nodes +
		"88 00 0000 20000000" + gateway,
}

func TestMalformed(t *testing.T) {
	frames := map[string][]byte{
		"empty":         nil,
		"cut Ethernet":  unhex(t, "333300000001 0a00"),
		"cut IPv6":      unhex(t, toAll+"60000000 0018 3aff"),
		"tagged":        slices.Concat(unhex(t, "333300000001 0a0000320001 8100 0032"), sum(unhex(t, advert))[12:]),
		"wrong sum":     unhex(t, advert),
		"one bit wrong": sum(unhex(t, advert)),
	}
	frames["one bit wrong"][70] ^= 0x10
	for name, frame := range malformed {
		frames[name] = sum(unhex(t, frame))
	}
	for name, frame := range frames {
		if m, err := ndp.Parse(frame); err == nil {
			t.Errorf("%s: read as %+v", name, m)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error of several lines: %v", name, err)
		}
	}
}

// FuzzParse checks that Parse survives every frame a station can send, and that a message that it
// has read is written back as it was. The checksum is set first, since the fuzzer would seldom find
// the right one.
func FuzzParse(f *testing.F) {
	for _, frame := range malformed {
		f.Add(unhex(f, frame))
	}
	f.Add(unhex(f, advert))
	for _, build := range []func(ether.MAC, netip.Addr) ([]byte, error){ndp.Probe, ndp.Announce} {
		frame, err := build(mac, addr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= 58 && len(frame) < 256 {
			frame = sum(frame)
		}
		m, err := ndp.Parse(frame)
		if err != nil {
			return
		}
		again, err := m.Frame()
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", m, err)
		}
		got, err := ndp.Parse(again)
		if err != nil {
			t.Fatalf("%+v was written but cannot be read: %v", m, err)
		}
		if got != m {
			t.Fatalf("written back\n%+v for\n%+v", got, m)
		}
	})
}
