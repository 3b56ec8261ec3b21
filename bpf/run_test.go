package bpf

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/verify"
)

// What the program may answer (include/uapi/linux/pkt_cls.h).
const (
	next = ^uint32(0) // TC_ACT_UNSPEC and TCX_NEXT
	shot = 2
)

// A kit is programs and maps that hang on no device.
type kit struct {
	wireObjects
	maps
}

func mustKit(tb testing.TB) *kit {
	tb.Helper()
	k := new(kit)
	must(tb, loadInto(loadWireObjects, &k.wireObjects, nil))
	tb.Cleanup(func() { k.Close() })
	k.maps = mapsOf(&k.wireObjects)
	must(tb, k.exactly(time.Hour))
	return k
}

func mapsOf(o *wireObjects) maps {
	return maps{
		endpoints: table[wireMacKey, wireEndpoint]{o.Endpoints},
		shared:    table[wireEndpointKey, wireEndpoint]{o.Shared},
		addrs:     table[wireAddressKey, wireAddress]{o.Addrs},
		hints:     array[wireHint]{fd: o.Hints.FD()},
		times:     array[wireClock]{fd: o.Times.FD()},
		history:   array[wirePlace]{fd: o.History.FD()},
		former:    o.Former,
		vlans:     o.Vlans,
	}
}

// out and in run the program over a frame that leaves, or comes in.
func (k *kit) out(tb testing.TB, frame []byte) uint32 { return mustRet(tb, k.Egress, frame, 0, 0) }
func (k *kit) in(tb testing.TB, frame []byte) uint32  { return mustRet(tb, k.Ingress, frame, 0, 0) }

// mustRet runs a program over a buffer that is so many segments on the wire.
func mustRet(tb testing.TB, p *ebpf.Program, frame []byte, segments, size uint32) uint32 {
	tb.Helper()
	// Of struct __sk_buff (include/uapi/linux/bpf.h): wire_len, gso_segs, gso_size.
	ctx := make([]byte, 180)
	binary.NativeEndian.PutUint32(ctx[160:], uint32(len(frame)))
	binary.NativeEndian.PutUint32(ctx[164:], segments)
	binary.NativeEndian.PutUint32(ctx[176:], size)
	ret, err := p.Run(&ebpf.RunOptions{Data: frame, Context: ctx})
	must(tb, err)
	return ret
}

func (k *kit) mustEvidence(tb testing.TB, e verify.Endpoint) verify.Evidence {
	tb.Helper()
	ev, err := k.evidence(e)
	must(tb, err)
	return ev
}

// mustRun runs a program some times over a frame, and says how long one took, in
// nanoseconds.
func mustRun(tb testing.TB, p *ebpf.Program, frame []byte, times int) int64 {
	tb.Helper()
	_, d, err := p.Benchmark(frame, times, nil)
	must(tb, err)
	return d.Nanoseconds()
}
