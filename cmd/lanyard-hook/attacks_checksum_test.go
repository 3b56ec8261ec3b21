package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// mustSendSummed sends a frame with a request to write the Internet checksum of all bytes
// from start to start+offset (struct virtio_net_hdr). The kernel writes it when it passes
// the frame to a device without checksum offload.
func (r *raw) mustSendSummed(t *testing.T, frame []byte, start, offset int) {
	t.Helper()
	header := []byte{unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 0, 0}
	header = binary.NativeEndian.AppendUint16(header, uint16(start))
	header = binary.NativeEndian.AppendUint16(header, uint16(offset))
	must(t, unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	err := unix.Sendto(r.fd, append(header, frame...), 0, &unix.SockaddrLinklayer{Ifindex: r.index, Halen: 6})
	// Newer kernels refuse some of them.
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINVAL) {
		t.Fatalf("send %x: %v", frame, err)
	}
	must(t, unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 0))
}

// comesTo sets the frame's last two bytes so that its checksum from start is value.
func comesTo(frame []byte, start int, value uint16) []byte {
	frame = bytes.Clone(frame)
	last := len(frame) - 2
	if (last-start)%2 != 0 {
		frame, last = append(frame, 0), last+1
	}
	binary.BigEndian.PutUint16(frame[last:], 0)
	sum := uint32(0)
	for i := start; i < last; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(frame[i:]))
	}
	sum += 0xffff - uint32(^value) // the missing part, in ones' complement
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(frame[last:], ^uint16(sum))
	return frame
}

// mustNotSum turns off a device's own checksums, as if it had none.
func mustNotSum(t *testing.T, n *testenv.Namespace, device string) {
	t.Helper()
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		pad  [16]byte
	}
	copy(request.name[:], device)
	request.data = unsafe.Pointer(&value)
	must(t, n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL,
			uintptr(unsafe.Pointer(&request))); errno != 0 {
			return errno
		}
		return nil
	}))
}

// TestAttackChecksum sends frames with a checksum that the kernel writes later. A sender can choose
// the position and the value of the checksum, and so turn a permitted frame into another
// one after the guard's check.
func TestAttackChecksum(t *testing.T) { attackBySums(t, newPrisoner(t, nil)) }

func TestAttackChecksumDirect(t *testing.T) { attackBySums(t, newPrisoner(t, direct)) }

func attackBySums(t *testing.T, p *prisoner) {
	t.Helper()
	mustNotSum(t, p.Host, p.Trunk)
	mark := []byte("!attack!")
	v4, gw4 := netip.MustParseAddr("192.168.50.9"), netip.MustParseAddr("192.168.50.1")
	// Built with the victim's address, so that the header checksum is the victim's, and then
	// given the sender's own address.
	udp := etherFrame(broadcast, p.own, 0x0800, packet4("192.168.50.10", "255.255.255.255", 17,
		append(append(udpPorts(4242, 4242), mark...), 0, 0)...))
	copy(udp[26:], v4.AsSlice())
	udp6 := etherFrame(ndp.GroupMAC(allNodes), p.own, 0x86dd,
		packet6(netip.MustParseAddr("fd50::9"), allNodes, 17, append(append(udpPorts(4242, 4242), mark...), 0, 0)...))
	question, err := arp.Packet{Destination: broadcast, Source: p.own, Sender: p.own, SenderIP: v4, TargetIP: gw4}.Frame()
	must(t, err)
	question = append(append(question, mark...), 0, 0)
	r := mustRaw(t, p.c.Namespace, "eth0")
	tap := mustTap(t, p.Switch)
	before := p.stopped("prisoner")
	frames := []struct {
		frame []byte
		at    int
		value uint16
	}{
		{udp, 28, 50<<8 | 10},     // the victim's IPv4 address
		{udp, 34, 67},             // a DHCP server's port
		{udp6, 36, 0x10},          // the victim's IPv6 address
		{question, 30, 50<<8 | 1}, // ARP: the gateway is at my MAC
		{question, 20, 2},         // ARP: an answer
		{udp, 26, 192<<8 | 168},   // the old value, as far as the check sees
	}
	for _, f := range frames {
		r.mustSendSummed(t, comesTo(f.frame, f.at, f.value), f.at, 0)
	}
	for _, f := range tap.until(t, p.end(t, r)) {
		if bytes.Contains(f, mark) {
			t.Errorf("the switch saw %x", f)
		}
	}
	if n := p.stopped("prisoner") - before; n != uint64(len(frames)) {
		t.Errorf("%d frames were sent, and %d counted", len(frames), n)
	}
	// The victim's MAC, and a VLAN tag: some kernels refuse to send these, others forget
	// the checksum at the end of the veth pair (skb_postpull_rcsum).
	r.mustSendSummed(t, comesTo(udp, 10, 50<<8|10), 10, 0)
	r.mustSendSummed(t, comesTo(udp, 12, 0x8100), 12, 0)
	for _, f := range tap.until(t, p.end(t, r)) {
		if bytes.Contains(f, mark) && (ether.MAC(f[6:12]) != p.own || f[12] != 8) {
			t.Errorf("the switch saw %x", f)
		}
	}
	// Checksums that hosts normally leave to be written are written.
	server := mustListen(t, p.gw.Namespace)
	defer server.Close()
	for _, up := range []bool{true, false} {
		if rate := mustStream(t, p.c.Namespace, server, up); rate < 1e6 {
			t.Errorf("an honest stream has %.0f bytes/s", rate)
		}
	}
}

// TestAttackRing changes a frame after the guard's check. A packet socket sends from its
// ring without a copy. A veth pair copies, so this attack needs a macvlan.
func TestAttackRing(t *testing.T) {
	p := newPrisoner(t, direct)
	mark := []byte("!attack!")
	r := mustRaw(t, p.c.Namespace, "eth0")
	const frames, size, data = 8, 2048, 32 // TPACKET_ALIGN(sizeof(struct tpacket2_hdr))
	must(t, unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2))
	must(t, unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &unix.TpacketReq{
		Block_size: frames * size, Block_nr: 1, Frame_size: size, Frame_nr: frames,
	}))
	pages, err := unix.Mmap(r.fd, 0, frames*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(pages)) }()
	must(t, unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: r.index}))
	frame := etherFrame(p.router, p.own, 0x0800, packet4("192.168.50.9", "192.168.50.1", 17,
		append(udpPorts(4242, 4242), mark...)...))
	tap := mustTap(t, p.Switch)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for value := byte(9); ; value ^= 9 ^ 10 {
			select {
			case <-stop:
				return
			default:
			}
			for range 10 {
				for at := data; at < len(pages); at += size {
					pages[at+29] = value // the last byte of the source: its own, the victim's
				}
			}
		}
	}()
	for range 500 {
		for at := 0; at < len(pages); at += size {
			copy(pages[at+data:], frame)
			binary.NativeEndian.PutUint32(pages[at+4:], uint32(len(frame)))
			binary.NativeEndian.PutUint32(pages[at:], unix.TP_STATUS_SEND_REQUEST)
		}
		if err := unix.Sendto(r.fd, nil, 0, nil); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	passed, forged := 0, 0
	for _, f := range tap.until(t, p.end(t, mustRaw(t, p.c.Namespace, "eth0"))) {
		if !bytes.Contains(f, mark) {
			continue
		}
		passed++
		if f[29] != 9 {
			forged++
		}
	}
	if forged > 0 || passed == 0 {
		t.Errorf("of %d frames that the switch saw, %d were forged", passed, forged)
	}
}
