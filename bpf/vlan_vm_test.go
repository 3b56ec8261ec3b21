//go:build vm

package bpf

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
)

// addVLAN makes a VLAN sub-interface in a namespace, up.
func addVLAN(tb testing.TB, n *testenv.Namespace, parent, name, proto, vid string) {
	tb.Helper()
	_, err := n.Exec("ip", "link", "add", "link", parent, "name", name, "up", "type", "vlan", "proto", proto, "id", vid)
	must(tb, err)
}

func (b *bench) expect50(tb testing.TB) verify.Endpoint {
	tb.Helper()
	e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Tags: vlan50, Addrs: []netip.Addr{addr4},
		Gateways: []netip.Addr{gw4}, Attachment: verify.ID{1}, Enforce: true}
	b.do(tb, func() error { return b.Expect(e) })
	return e
}

// setOffload switches the card's handling of VLAN tags, both ways (ethtool -K
// rxvlan, txvlan).
func setOffload(nic string, on bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// From include/uapi/linux/ethtool.h: struct ethtool_value.
	const setFlags, txVLAN, rxVLAN = 0x26, 1 << 7, 1 << 8
	value := &struct{ cmd, flags uint32 }{cmd: setFlags}
	if on {
		value.flags = txVLAN | rxVLAN
	}
	request := struct {
		name  [unix.IFNAMSIZ]byte
		value unsafe.Pointer
		_     [16]byte
	}{value: unsafe.Pointer(value)}
	copy(request.name[:], nic)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL,
		uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// TestVLAN pings over a real VLAN: its tag is in the metadata, both ways, with the
// card's offloads on and off.
func TestVLAN(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		for _, offload := range []bool{true, false} {
			b := newBench(t, Options{Legacy: o.Legacy}, testenv.Config{VLANs: []uint16{50, 60}})
			b.do(t, func() error { return setOffload(b.Trunk, offload) })
			gw := b.AddGateway(50, "192.168.50.1/24")
			addVLAN(t, b.Host, b.Trunk, "eth9.50", "802.1q", "50")
			e := b.expect50(t)
			c := b.join(t, "eth9.50", ownMAC, "192.168.50.2/24")
			must(t, ping(c.Namespace, gw4, 5))
			ev := b.mustEvidence(t, e)
			if got := ev.Counters; got.OutFrames != 6 || got.InFrames != 6 || got.OutWrong+got.InWrong != 0 {
				t.Errorf("offload %v: counted %+v, want six frames each way", offload, got)
			}
			g := ev.Gateways[0]
			if g.MAC != gw.MAC || !g.Asked.Tags.Equal(vlan50) || !g.Reply.Tags.Equal(vlan50) ||
				g.Asked.InPacket || g.Reply.InPacket {
				t.Errorf("offload %v: the gateway was seen as %+v, want tags in metadata", offload, g)
			}
			heard := false
			for _, v := range ev.VLANs {
				heard = heard || v.VID == 50 && v.Frames >= 6 && v.At >= g.Asked.At
			}
			if !heard {
				t.Errorf("offload %v: heard %+v, want six frames of VLAN 50 at the least", offload, ev.VLANs)
			}
		}
	})
}

// TestHopping is a container that writes tags by hand to get into another VLAN:
// from a network without tags, and by a second tag from one with. Where it may, the
// other VLAN's gateway really answers.
func TestHopping(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{VLANs: []uint16{50, 60}})
		b.AddGateway(60, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Gateways: []netip.Addr{gw4}, Attachment: verify.ID{1}}
		s, err := b.Emitter()
		must(t, err)
		c := b.join(t, b.Trunk, ownMAC, "192.168.50.2/24")
		nic := mustIndex(t, c.Namespace, "eth0")
		hop := tagged(mustFrame(t)(arp.Probe(ownMAC, gw4)), tag60)
		send := func() error { return c.Do(func() error { return s.Send(nic, hop) }) }

		b.do(t, func() error { return b.Expect(e) })
		must(t, send())
		testenv.Eventually(t, "the other VLAN's gateway to answer", func() error {
			ev := b.mustEvidence(t, e)
			g := ev.Gateways[0]
			if ev.Counters.OutWrong != 1 || ev.Counters.InWrong != 1 || !g.Asked.Tags.Equal(vlan60) || !g.Asked.InPacket ||
				!g.Reply.Tags.Equal(vlan60) {
				return errors.New("not seen yet")
			}
			return nil
		})
		e.Enforce = true
		b.do(t, func() error { return b.Expect(e) })
		if err := send(); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("hopping: %v, want %v", err, unix.ENOBUFS)
		}
		addVLAN(t, b.Host, b.Trunk, "eth9.50", "802.1q", "50")
		f := verify.Endpoint{Trunk: b.trunk, MAC: sibling, Tags: vlan50, Attachment: verify.ID{2}, Enforce: true}
		b.do(t, func() error { return b.Expect(f) })
		d := b.join(t, "eth9.50", sibling, "192.168.50.3/24")
		nic = mustIndex(t, d.Namespace, "eth0")
		hop = tagged(mustFrame(t)(arp.Probe(sibling, gw4)), tag60)
		if err := d.Do(func() error { return s.Send(nic, hop) }); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("a second tag: %v, want %v", err, unix.ENOBUFS)
		}
		for _, e := range []verify.Endpoint{e, f} {
			if got := b.mustEvidence(t, e).Counters; got.Dropped != 1 {
				t.Errorf("%s: counted %+v, want one dropped", e.MAC, got)
			}
		}
	})
}

// TestQinQ pings over two tags: the outer one in the metadata, the inner one in the
// bytes.
func TestQinQ(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		gw := b.AddGateway(0)
		for _, end := range []struct {
			n   *testenv.Namespace
			nic string
		}{{b.Host, b.Trunk}, {gw.Namespace, testenv.NIC}} {
			addVLAN(t, end.n, end.nic, "s100", "802.1ad", "100")
			addVLAN(t, end.n, "s100", "c200", "802.1q", "200")
		}
		_, err := gw.Exec("ip", "addr", "add", "192.168.50.1/24", "dev", "c200")
		must(t, err)
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Tags: qinq, Gateways: []netip.Addr{gw4}, Attachment: verify.ID{1},
			Enforce: true}
		b.do(t, func() error { return b.Expect(e) })
		c := b.join(t, "c200", ownMAC, "192.168.50.2/24")
		must(t, ping(c.Namespace, gw4, 5))
		ev := b.mustEvidence(t, e)
		g := ev.Gateways[0]
		if got := ev.Counters; got.OutFrames != 6 || got.InFrames != 6 || !g.Asked.Tags.Equal(qinq) ||
			!g.Reply.Tags.Equal(qinq) || g.Asked.InPacket {
			t.Errorf("%+v, want six frames each way under %s", ev, qinq)
		}
	})
}

// TestNativeMismatch has the switch send the VLAN without its tag.
func TestNativeMismatch(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{VLANs: []uint16{50}})
	b.AddGateway(50, "192.168.50.1/24")
	addVLAN(t, b.Host, b.Trunk, "eth9.50", "802.1q", "50")
	e := b.expect50(t)
	c := b.join(t, "eth9.50", ownMAC, "192.168.50.2/24")
	b.SetNative(50)
	s, err := b.Emitter()
	must(t, err)
	nic := mustIndex(t, c.Namespace, "eth0")
	must(t, c.Do(func() error { return s.Send(nic, mustFrame(t)(arp.Probe(ownMAC, gw4))) }))
	testenv.Eventually(t, "the answer without a tag", func() error {
		ev := b.mustEvidence(t, e)
		if g := ev.Gateways[0]; ev.Counters.InWrong != 1 || g.Reply.Count != 1 || len(g.Reply.Tags) != 0 ||
			!g.Asked.Tags.Equal(vlan50) {
			return errors.New("not seen yet")
		}
		return nil
	})
}

// TestSameMACOnTwoVLANs has two containers of one MAC, as the kernel allows it.
func TestSameMACOnTwoVLANs(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{VLANs: []uint16{50, 60}})
	for i, tags := range []ether.Tags{vlan50, vlan60} {
		name := []string{"eth9.50", "eth9.60"}[i]
		b.AddGateway(tags[0].VID, "192.168.50.1/24")
		addVLAN(t, b.Host, b.Trunk, name, "802.1q", strings.TrimPrefix(name, "eth9."))
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Tags: tags, Gateways: []netip.Addr{gw4},
			Attachment: verify.ID{byte(i) + 1}}
		b.do(t, func() error { return b.Expect(e) })
		c := b.join(t, name, ownMAC, "192.168.50.2/24")
		must(t, ping(c.Namespace, gw4, 5))
		if ev := b.mustEvidence(t, e); ev.Counters.OutFrames != 6 || ev.Counters.InFrames != 6 || ev.Counters.OutWrong != 0 {
			t.Errorf("%s: %+v, want six frames each way", tags, ev.Counters)
		}
	}
}
