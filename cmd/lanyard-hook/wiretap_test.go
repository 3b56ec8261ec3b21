package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// A wiretap receives all frames that pass the interfaces of a namespace.
type wiretap struct{ f *os.File }

func mustTap(tb testing.TB, n *testenv.Namespace) *wiretap {
	tb.Helper()
	w := new(wiretap)
	must(tb, n.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		w.f = os.NewFile(uintptr(fd), "wiretap")
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 0),
		)
	}))
	tb.Cleanup(func() { w.f.Close() })
	return w
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// until collects frames up to one that contains the mark.
func (w *wiretap) until(tb testing.TB, mark []byte) (frames [][]byte) {
	tb.Helper()
	must(tb, w.f.SetReadDeadline(time.Now().Add(20*time.Second)))
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			tb.Fatalf("the last frame did not come: %v", err)
		}
		if bytes.Contains(buf[:n], mark) {
			return frames
		}
		frames = append(frames, bytes.Clone(buf[:n]))
	}
}

// A raw socket sends frames unchanged, as root of a container can.
type raw struct {
	fd    int
	index int
}

func mustRaw(tb testing.TB, n *testenv.Namespace, name string) *raw {
	tb.Helper()
	r := new(raw)
	must(tb, n.Do(func() (err error) {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		r.index = i.Index
		r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	tb.Cleanup(func() { unix.Close(r.fd) })
	return r
}

func (r *raw) mustSend(tb testing.TB, frame []byte) {
	tb.Helper()
	err := unix.Sendto(r.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: r.index, Halen: 6})
	// A drop on the path may cause this error; the frame was dropped there.
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		tb.Fatalf("send %x: %v", frame, fmt.Errorf("%w", err))
	}
}
