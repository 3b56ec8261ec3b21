package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// TestLab counts a container's pings, frame by frame.
func TestLab(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		gw := b.AddGateway(0, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Addrs: []netip.Addr{addr4}, Gateways: []netip.Addr{gw4},
			Attachment: verify.ID{1}, Enforce: true}
		b.do(t, func() error { return b.Expect(e) })
		c := b.join(t, b.Trunk, ownMAC, "192.168.50.2/24")
		start := verify.Now()
		must(t, ping(c.Namespace, gw4, 5))
		ev := b.mustEvidence(t, e)
		// One ARP request of 42 bytes and five pings of 98, each answered.
		want := verify.Counters{OutFrames: 6, OutBytes: 42 + 5*98, InFrames: 6, InBytes: 42 + 5*98}
		if ev.Counters != want {
			t.Errorf("counted %+v, want %+v", ev.Counters, want)
		}
		g := ev.Gateways[0]
		if g.MAC != gw.MAC || g.Asked.Count != 1 || g.Reply.Count != 1 ||
			len(g.Asked.Tags)+len(g.Reply.Tags) != 0 ||
			g.Asked.At < start || g.Reply.At < g.Asked.At || g.Reply.At > verify.Now() {
			t.Errorf("the gateway was seen as %+v, want one question and one answer after %d", g, start)
		}
		if len(ev.Claimants) != 0 || len(ev.VLANs) != 1 || ev.VLANs[0].VID != 0 {
			t.Errorf("claimants %+v, VLANs %+v, want none, and only untagged frames", ev.Claimants, ev.VLANs)
		}
	})
}

// TestLabClaimants has another machine claim the container's addresses.
func TestLabClaimants(t *testing.T) {
	b := newBench(t, Options{}, testenv.Config{})
	e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Addrs: []netip.Addr{addr4, addr6}, Attachment: verify.ID{1}}
	b.do(t, func() error { return b.Expect(e) })
	r := b.AddClaimant(0)
	s, err := b.Emitter()
	must(t, err)
	nic := mustIndex(t, r.Namespace, testenv.NIC)
	for _, frame := range [][]byte{mustFrame(t)(arp.Announce(r.MAC, addr4)),
		mustFrame(t)(ndp.Announce(r.MAC, addr6))} {
		must(t, r.Do(func() error { return s.Send(nic, frame) }))
	}
	testenv.Eventually(t, "the claimant", func() error {
		got := b.mustEvidence(t, e).Claimants
		if len(got) != 2 || got[0].Addr != addr4 || got[1].Addr != addr6 || got[0].MAC != r.MAC ||
			got[1].MAC != r.MAC {
			return fmt.Errorf("seen: %+v", got)
		}
		return nil
	})
}

// TestFragments hides a tag after the part of a frame that the kernel keeps in one piece. A sender
// chooses where that part ends (PACKET_VNET_HDR), and must not get a wrong tag past the program in
// this way.
func TestFragments(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		b.AddGateway(0, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Tags: vlan50, Gateways: []netip.Addr{gw4}, Attachment: verify.ID{1},
			Enforce: true}
		b.do(t, func() error { return b.Expect(e) })
		c := b.join(t, b.Trunk, ownMAC, "192.168.50.2/24")
		for _, l := range []struct {
			in  *testenv.Namespace
			nic string
		}{{b.Switch, "trunk"}, {b.Host, b.Trunk}, {c.Namespace, "eth0"}} {
			_, err := l.in.Exec("ip", "link", "set", l.nic, "mtu", "9000")
			must(t, err)
		}
		body := make([]byte, 6000)
		for _, f := range []struct {
			frame []byte
			want  error
		}{
			// 0x88b5 is an EtherType for local experiments (IEEE 802, clause 9.2.3).
			{tagged(frame(router, ownMAC, 0x88b5, body), tag50), nil},
			{tagged(frame(router, ownMAC, 0x88b5, body), tag60), unix.ENOBUFS},
			{tagged(frame(router, ownMAC, 0x88b5, body), tag50, tag60), unix.ENOBUFS},
			{frame(router, ownMAC, 0x88b5, body), unix.ENOBUFS},
			{append(tagged(mustFrame(t)(arp.Probe(ownMAC, gw4)), tag50), body...), nil},
		} {
			for _, linear := range []uint16{14, 15, 16, 17, 18, 20, 64} {
				if err := c.Do(func() error { return sendSplit("eth0", f.frame, linear) }); !errors.Is(err, f.want) {
					t.Errorf("a frame with type %#x, split after %d bytes: %v, want %v", f.frame[12:14], linear, err, f.want)
				}
			}
		}
		got := b.mustEvidence(t, e)
		if got.Counters.OutFrames != 14 || got.Counters.Dropped != 21 || got.Gateways[0].Asked.Count != 7 {
			t.Errorf("%+v, want 14 frames out, 7 of them questions, and 21 dropped", got)
		}
	})
}

// sendSplit sends a frame through a packet socket that keeps its first linear bytes together, and
// the rest, which is more than a page, in fragments.
func sendSplit(nic string, frame []byte, linear uint16) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return err
	}
	var ifr *unix.Ifreq
	if ifr, err = unix.NewIfreq(nic); err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return err
	}
	// struct virtio_net_hdr: no checksum, no segments, and hdr_len.
	header := []byte{0, 0, byte(linear), byte(linear >> 8), 0, 0, 0, 0, 0, 0}
	return unix.Sendto(fd, append(header, frame...), 0, &unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32())})
}
