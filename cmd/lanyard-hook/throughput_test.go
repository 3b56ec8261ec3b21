package main

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// BenchmarkGuarded compares the TCP throughput of a guarded attachment with a direct one,
// to the gateway and back. Both run in turns, so that a busy machine affects both.
func BenchmarkGuarded(b *testing.B) {
	w, gw := lanBrokered(b, func(d *network.Definition) { d.Verify = verify.Off })
	guarded, rootful := testenv.NewRootless(b, alice), testenv.NewContainer(b)
	w.mustAttachBy(alice, "guarded", guarded.Pid, "network=web")
	w.MustAttach("direct", rootful, "network=web")
	server := mustListen(b, gw.Namespace)
	defer server.Close()
	for _, up := range []bool{true, false} {
		name := map[bool]string{true: "out", false: "in"}[up]
		b.Run(name, func(b *testing.B) {
			var direct, guard float64
			for b.Loop() {
				direct += mustStream(b, rootful.Namespace, server, up)
				guard += mustStream(b, guarded.Namespace, server, up)
			}
			b.ReportMetric(direct/float64(b.N)/1e9, "direct-GB/s")
			b.ReportMetric(guard/float64(b.N)/1e9, "guarded-GB/s")
			b.ReportMetric(guard/direct, "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func mustListen(tb testing.TB, n *testenv.Namespace) (l net.Listener) {
	tb.Helper()
	must(tb, n.Do(func() (err error) {
		l, err = net.Listen("tcp4", "192.168.50.1:0")
		return err
	}))
	return l
}

// mustStream sends in one direction for some time, and returns bytes per second.
func mustStream(tb testing.TB, from *testenv.Namespace, server net.Listener, up bool) float64 {
	tb.Helper()
	var near net.Conn
	must(tb, from.Do(func() (err error) {
		near, err = net.Dial("tcp4", server.Addr().String())
		return err
	}))
	far, err := server.Accept()
	must(tb, err)
	source, sink := near, far
	if !up {
		source, sink = far, near
	}
	const span = time.Second
	go func() {
		defer source.Close()
		chunk := make([]byte, 128<<10)
		for end := time.Now().Add(span); time.Now().Before(end); {
			if _, err := source.Write(chunk); err != nil {
				return
			}
		}
	}()
	start := time.Now()
	n, err := io.Copy(io.Discard, onlyReader{sink})
	must(tb, err)
	must(tb, sink.Close())
	return float64(n) / time.Since(start).Seconds()
}

// onlyReader prevents io.Copy from splicing.
type onlyReader struct{ io.Reader }
