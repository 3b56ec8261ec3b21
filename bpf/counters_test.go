package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

const (
	payload    = 1000 // bytes of a datagram
	segments   = 8    // datagrams in a buffer that the kernel segments (GSO)
	headers    = 14 + 20 + 8
	burstCount = 4
	burstSize  = 25 // sends on one processor before the sender waits for the receiver
)

// TestCounters sends a known number of frames from all processors at once, in each direction,
// singly and in buffers that the kernel segments later: each frame is counted.
func TestCounters(t *testing.T) {
	onBoth(t, func(t *testing.T, o Options) {
		b := newBench(t, o, testenv.Config{})
		gw := b.AddGateway(0, "192.168.50.1/24")
		e := verify.Endpoint{Trunk: b.trunk, MAC: ownMAC, Attachment: verify.ID{1}, Enforce: true}
		c := b.join(t, b.Trunk, ownMAC, "192.168.50.2/24")
		// With permanent neighbour entries, no ARP frame is sent in between.
		for _, end := range []struct {
			n         *testenv.Namespace
			addr, mac string
			nic       string
		}{{c.Namespace, gw4.String(), gw.MAC.String(), "eth0"}, {gw.Namespace, addr4.String(), ownMAC.String(), gw.Card}} {
			_, err := end.n.Exec("ip", "neigh", "replace", end.addr, "lladdr", end.mac, "dev", end.nic, "nud", "permanent")
			must(t, err)
		}
		b.do(t, func() error { return b.Expect(e) })
		cpus := uint64(runtime.NumCPU())
		sends := cpus * burstCount * burstSize
		want := verify.Counters{}
		for _, segs := range []uint64{1, segments} {
			must(t, flood(c.Namespace, gw.Namespace, gw4, int(segs)))
			want.OutFrames += sends * segs
			want.OutBytes += sends * segs * (headers + payload)
			must(t, flood(gw.Namespace, c.Namespace, addr4, int(segs)))
			want.InFrames += sends * segs
			// See verify.Counters. A bridge may have segmented the buffer before (Linux 5.10 does).
			want.InBytes += sends * (headers + segs*payload)
			got := b.mustEvidence(t, e).Counters
			if cut := sends * (segs - 1) * headers; got.InBytes == want.InBytes+cut {
				want.InBytes += cut
			}
			if got != want {
				t.Errorf("%d processors, %d frames a send: counted\n%+v, want\n%+v", cpus, segs, got, want)
				want = got
			}
		}
	})
}

// flood sends from every processor at once. It waits in between until all datagrams have arrived:
// the receiver's queue would drop those that it has no room for.
func flood(from, to *testenv.Namespace, addr netip.Addr, segs int) error {
	var all errgroup.Group
	for cpu := range runtime.NumCPU() {
		all.Go(func() error {
			in, err := listen(to, addr)
			if err != nil {
				return err
			}
			defer in.Close()
			return from.Do(func() error { return send(cpu, in, segs) })
		})
	}
	return all.Wait()
}

func listen(n *testenv.Namespace, addr netip.Addr) (in *net.UDPConn, err error) {
	err = n.Do(func() (err error) {
		in, err = net.ListenUDP("udp4", &net.UDPAddr{IP: addr.AsSlice()})
		return err
	})
	if err != nil {
		return nil, err
	}
	raw, err := in.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		})
		err = errors.Join(err, cerr)
	}
	return in, err
}

// send runs on a thread in the sender's namespace.
func send(cpu int, to *net.UDPConn, segs int) (err error) {
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &before)) }()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if segs > 1 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, payload); err != nil {
			return err
		}
	}
	at := to.LocalAddr().(*net.UDPAddr).AddrPort()
	dst := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().Unmap().As4()}
	data, got := make([]byte, segs*payload), make([]byte, 2*payload)
	for range burstCount {
		for range burstSize {
			if err := unix.Sendto(fd, data, 0, dst); err != nil {
				return err
			}
		}
		if err := to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		for i := range burstSize * segs {
			if n, err := to.Read(got); err != nil || n != payload {
				return fmt.Errorf("read %d of %d: %d bytes: %w", i, burstSize*segs, n, err)
			}
		}
	}
	return nil
}
