package bpf

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/verify"
)

// Return values of the programs (include/uapi/linux/pkt_cls.h).
const (
	next = ^uint32(0) // TC_ACT_UNSPEC and TCX_NEXT
	shot = 2
)

// A kit is programs and maps that are not attached to a device.
type kit struct {
	Egress, Ingress *ebpf.Program
	maps
}

func mustKit(tb testing.TB) *kit {
	tb.Helper()
	o := mustLoad(tb, loadWire)
	k := &kit{Egress: o.Programs[egress.name], Ingress: o.Programs[ingress.name]}
	k.maps = maps{
		endpoints: table[wireMacKey, wireEndpoint]{o.Maps[endpointsPin]},
		shared:    table[wireEndpointKey, wireEndpoint]{o.Maps[sharedPin]},
		addrs:     table[wireAddressKey, wireAddress]{o.Maps[addrsPin]},
		hints:     array[wireHint]{Map: o.Maps[hintsPin]},
		times:     array[wireClock]{Map: o.Maps[timesPin]},
		history:   array[wireHistoryRow]{Map: o.Maps[historyPin]},
		former:    o.Maps[formerPin],
		locals:    o.Maps[localsPin],
		vlans:     o.Maps[vlansPin],
	}
	must(tb, k.useExactClock(time.Hour))
	return k
}

// mustLoad loads all of an object into the kernel until the test ends.
func mustLoad(tb testing.TB, spec func() (*ebpf.CollectionSpec, error)) *ebpf.Collection {
	tb.Helper()
	o, err := load(spec, nil, "")
	must(tb, err)
	tb.Cleanup(o.Close)
	return o
}

// out and in run the program over a frame that leaves, or arrives.
func (k *kit) out(tb testing.TB, frame []byte) uint32 { return mustRet(tb, k.Egress, frame, 0, 0) }
func (k *kit) in(tb testing.TB, frame []byte) uint32  { return mustRet(tb, k.Ingress, frame, 0, 0) }

// mustRet runs a program over a buffer of so many segments of the given size, and returns its
// result.
func mustRet(tb testing.TB, p *ebpf.Program, frame []byte, segments, size uint32) uint32 {
	tb.Helper()
	// Fields of struct __sk_buff (include/uapi/linux/bpf.h): wire_len, gso_segs, gso_size.
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

// mustRun runs a program repeatedly over a frame, and returns the time of one run in nanoseconds.
func mustRun(tb testing.TB, p *ebpf.Program, frame []byte, times int) int64 {
	tb.Helper()
	_, d, err := p.Benchmark(frame, times, nil)
	must(tb, err)
	return d.Nanoseconds()
}

// expectInUse starts the watch of an endpoint, and marks its addresses as in use.
func (k *kit) expectInUse(tb testing.TB, e verify.Endpoint) {
	tb.Helper()
	must(tb, k.expect(e))
	p, err := tagKeyOf(e.Tags)
	must(tb, err)
	for _, a := range e.Addrs {
		must(tb, k.markInUse(p, e.MAC, a))
	}
}
