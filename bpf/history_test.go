package bpf

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

func (k *kit) mustEvents(tb testing.TB) []verify.Event {
	tb.Helper()
	list, err := k.events()
	must(tb, err)
	return list
}

// mustHaveEvent fails the test unless an event was recorded with that count, at times since the
// given one.
func (k *kit) mustHaveEvent(tb testing.TB, since verify.Instant, want verify.Event) {
	tb.Helper()
	for _, got := range k.mustEvents(tb) {
		if got.Key() == want.Key() {
			if got.Frames != want.Frames || got.First < since || got.Last < got.First || got.Last > verify.Now() {
				tb.Errorf("%s: %d times, from %d to %d; want %d since %d", got, got.Frames, got.First, got.Last, want.Frames, since)
			}
			return
		}
	}
	tb.Errorf("%s is not among %v", want, k.mustEvents(tb))
}

// TestHistory causes each kind of event twice.
func TestHistory(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	start := verify.Now()
	k.in(t, tagged(reply(t, router), tag50))
	k.in(t, tagged(advert(t, broadcast, router), tag50))
	for range 2 {
		k.out(t, tagged(data(router, ownMAC), tag60))
		k.in(t, tagged(data(ownMAC, router2), tag60, tag50))
		k.in(t, tagged(mustFrame(t)(arp.Announce(claimant, addr4)), tag50))
		k.in(t, tagged(mustFrame(t)(arp.Probe(claimant, addr4)), tag50)) // a probe is not an event
		k.in(t, tagged(mustFrame(t)(ndp.Announce(claimant, addr6)), tag50))
		k.out(t, data(router, claimant))
	}
	k.in(t, tagged(reply(t, router2), tag50))
	k.in(t, tagged(advert(t, broadcast, router2), tag50))
	for _, want := range []verify.Event{
		{Kind: verify.WrongTagOut, Stopped: true, Frames: 2, Tags: vlan60, InPacket: true, MAC: ownMAC, EndpointMAC: ownMAC},
		{Kind: verify.WrongTagIn, Frames: 2, Tags: ether.Tags{tag60, tag50}, InPacket: true, MAC: router2,
			EndpointMAC: ownMAC},
		{Kind: verify.Conflict, Frames: 2, Tags: vlan50, InPacket: true, Addr: addr4, MAC: claimant, EndpointMAC: ownMAC},
		{Kind: verify.Conflict, Frames: 2, Tags: vlan50, InPacket: true, Addr: addr6, MAC: claimant, EndpointMAC: ownMAC},
		{Kind: verify.UnleasedMAC, Frames: 2, MAC: claimant},
		{Kind: verify.GatewayMoved, Frames: 1, Tags: vlan50, InPacket: true, Addr: gw4, MAC: router2, EndpointMAC: ownMAC,
			PreviousMAC: router},
		{Kind: verify.GatewayMoved, Frames: 1, Tags: vlan50, InPacket: true, Addr: gw6, MAC: router2, PreviousMAC: router},
	} {
		k.mustHaveEvent(t, start, want)
	}
	if n := len(k.mustEvents(t)); n != 7 {
		t.Errorf("%d events, want 7: %v", n, k.mustEvents(t))
	}
	// Events stay when the container ends and another one gets its address.
	must(t, k.forget(e))
	k.expectInUse(t, e)
	if n := len(k.mustEvents(t)); n != 7 {
		t.Errorf("%d events are left", n)
	}
}

// TestTrailingFrames has a container send after its watch has ended, which is not an event. A frame
// long after the end, or from before it, is one.
func TestTrailingFrames(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	must(t, k.forget(e))
	k.out(t, data(router, ownMAC))
	if list := k.mustEvents(t); len(list) > 0 {
		t.Errorf("the last frame of a container: %v", list)
	}
	for what, ended := range map[string]time.Duration{"long ago": -time.Minute, "only now": time.Minute} {
		at := uint64(verify.Now()) + uint64(ended)
		must(t, update(k.former, macKey(ownMAC), &wireEnds{First: at, Last: at}, ebpf.UpdateAny))
		k.out(t, data(router, ownMAC))
		if list := k.mustEvents(t); len(list) != 1 || list[0].MAC != ownMAC {
			t.Errorf("a MAC whose watch ended %s: %v", what, list)
		}
	}
}

// TestTrailingFramesOfRestarts has a container that is restarted every few seconds send after each
// end, which is not an event. Frames between two of its runs, long after the end, are one, and no
// later end hides them.
func TestTrailingFramesOfRestarts(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	run := func() {
		k.expectInUse(t, e)
		must(t, k.forget(e))
		k.out(t, data(router, ownMAC))
	}
	ends := func() (recorded wireEnds) {
		_, err := lookup(k.former, macKey(ownMAC), &recorded, 0)
		must(t, err)
		return recorded
	}
	run()
	first := ends()
	run()
	second := ends()
	if second.First != first.First || second.Last <= first.Last {
		t.Errorf("the ends %+v do not continue %+v", second, first)
	}
	if list := k.mustEvents(t); len(list) > 0 {
		t.Errorf("the last frames of two runs: %v", list)
	}
	// With the ends a minute earlier, the last frame was sent long after them.
	second.First, second.Last = second.First-uint64(time.Minute), second.Last-uint64(time.Minute)
	must(t, update(k.former, macKey(ownMAC), &second, ebpf.UpdateAny))
	k.expectInUse(t, e)
	must(t, k.forget(e))
	if third := ends(); third.First != third.Last {
		t.Errorf("an end after frames of an unleased MAC continues the series: %+v", third)
	}
}

// TestHistoryFlooded has other stations and a container cause events without end. The events of
// other endpoints must remain.
func TestHistoryFlooded(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	o := verify.Endpoint{MAC: sibling, Tags: vlan50, Addrs: []netip.Addr{netip.MustParseAddr("192.168.50.3")},
		Enforce: true, Attachment: verify.ID{2}}
	k.expectInUse(t, o)
	start := verify.Now()
	k.in(t, tagged(mustFrame(t)(arp.Announce(claimant, o.Addrs[0])), tag50))
	k.out(t, tagged(data(router, sibling), tag60))
	mac := func(i int) ether.MAC { return ether.MAC{0x0e, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)} }
	const floods = 2000
	for i := range floods {
		k.in(t, tagged(mustFrame(t)(arp.Announce(mac(i), addr4)), tag50))
		k.in(t, tagged(data(ownMAC, mac(i)), tag60))
		k.out(t, data(router, mac(i)))
	}
	k.mustHaveEvent(t, start, verify.Event{Kind: verify.Conflict, Frames: 1, Tags: vlan50, InPacket: true,
		Addr: o.Addrs[0], MAC: claimant, EndpointMAC: sibling})
	k.mustHaveEvent(t, start, verify.Event{Kind: verify.WrongTagOut, Stopped: true, Frames: 1, Tags: vlan60,
		InPacket: true, MAC: sibling, EndpointMAC: sibling})
	k.mustHaveEvent(t, start, verify.Event{Kind: verify.Conflict, Frames: 1, Tags: vlan50, InPacket: true, Addr: addr4,
		MAC: mac(floods - 1), EndpointMAC: ownMAC})
	k.mustHaveEvent(t, start, verify.Event{Kind: verify.UnleasedMAC, Frames: 1, MAC: mac(floods - 1)})
	if n := len(k.mustEvents(t)); n > 32*4+3*4 {
		t.Errorf("%d events are kept", n)
	}
}

// TestHistoryConcurrent has several processors record equal and different events in one row, while
// the test reads it: no event is half written, and repetitions are counted.
func TestHistoryConcurrent(t *testing.T) {
	k, e := mustKit(t), watchedEndpoint()
	k.expectInUse(t, e)
	const runs = 20_000
	var all sync.WaitGroup
	for i := range byte(4) {
		all.Go(func() {
			mustRun(t, k.Ingress, tagged(mustFrame(t)(arp.Announce(ether.MAC{0x0e, 5: i}, addr4)), tag50), runs)
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		for _, ev := range k.mustEvents(t) {
			if ev.Kind != verify.Conflict || ev.Addr != addr4 || ev.EndpointMAC != ownMAC || ev.MAC[0] != 0x0e {
				t.Fatalf("read %+v", ev)
			}
		}
	}
	var total uint64
	for _, ev := range k.mustEvents(t) {
		total += ev.Frames
	}
	if total != 4*runs {
		t.Errorf("counted %d of %d", total, 4*runs)
	}
}

// FuzzHistory reads arbitrary bytes as a row of the map: later programs know other kinds. The lines
// that result must be safe for a terminal.
func FuzzHistory(f *testing.F) {
	one := wireHistoryRow{Next: 1}
	one.Events[0] = wireEvent{Key: wireEventKey{Kind: 1, Tag: [3]uint32{0x81008032}, Addr: addr4.As16(), Mac: claimant,
		EndpointMac: ownMAC}, First: 5, Last: 3, Frames: 1}
	size := int(unsafe.Sizeof(one))
	f.Add(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&one)), size)))
	for kind := range uint32(9) {
		b := make([]byte, size)
		binary.NativeEndian.PutUint32(b[8:], kind)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p wireHistoryRow
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&p)), size), b)
		for _, e := range eventsOf(&p) {
			if e.Kind == "" || e.Last < e.First || len(e.Tags) > 3 {
				t.Errorf("read %+v", e)
			}
			line := e.String() + e.Key()
			if strings.ContainsFunc(line, unicode.IsControl) || line == "" {
				t.Errorf("%+v says %q", e, line)
			}
			if _, err := json.Marshal(e); err != nil {
				t.Errorf("%+v: %v", e, err)
			}
			_ = fmt.Sprint(e.Expected())
		}
	})
}
