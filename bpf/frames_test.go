package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// The stations and addresses of the tests.
var (
	ownMAC    = ether.MAC{0x02, 0x42, 192, 168, 50, 2}
	sibling   = ether.MAC{0x02, 0x42, 192, 168, 50, 3}
	router    = ether.MAC{0x0a, 0, 0, 50, 0, 1}
	router2   = ether.MAC{0x0a, 0, 0, 50, 0, 2}
	claimant  = ether.MAC{0x0a, 0, 0, 50, 0, 9}
	broadcast = ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

	addr4 = netip.MustParseAddr("192.168.50.2")
	addr6 = netip.MustParseAddr("fd50::2")
	gw4   = netip.MustParseAddr("192.168.50.1")
	gw6   = netip.MustParseAddr("fe80::1")

	vlan50 = ether.Tags{{TPID: ether.Dot1Q, VID: 50}}
	vlan60 = ether.Tags{{TPID: ether.Dot1Q, VID: 60}}
	qinq   = ether.Tags{{TPID: ether.Dot1AD, VID: 100}, {TPID: ether.Dot1Q, VID: 200}}
)

// frame returns an Ethernet frame.
func frame(dst, src ether.MAC, proto uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, proto), payload...)
}

// tagged returns a frame with tags in its bytes.
func tagged(f []byte, tags ...ether.Tag) []byte {
	b := append([]byte{}, f[:12]...)
	for _, t := range tags {
		b = binary.BigEndian.AppendUint16(b, t.TPID)
		b = binary.BigEndian.AppendUint16(b, t.VID)
	}
	return append(b, f[12:]...)
}

// data returns a frame that is neither ARP nor ND.
func data(dst, src ether.MAC) []byte { return frame(dst, src, 0x0800, make([]byte, 46)) }

func mustARP(tb testing.TB, p arp.Packet) []byte {
	tb.Helper()
	return mustFrame(tb)(p.Frame())
}

func mustND(tb testing.TB, m ndp.Message) []byte {
	tb.Helper()
	return mustFrame(tb)(m.Frame())
}

func mustFrame(tb testing.TB) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		tb.Helper()
		must(tb, err)
		return b
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
