package bpf

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

func tag(tpid, vid uint16) ether.Tag { return ether.Tag{TPID: tpid, VID: vid} }

var (
	tag50, tag60 = tag(ether.Dot1Q, 50), tag(ether.Dot1Q, 60)
	s100         = tag(ether.Dot1AD, 100)
	c200         = tag(ether.Dot1Q, 200)
)

// TestTagsOut sends frames of a leased MAC with various tags in their bytes: frames with its own
// tags pass, all others are dropped if Enforce is set, and counted.
func TestTagsOut(t *testing.T) {
	cases := []struct {
		name  string
		frame []byte
		right string // the network with these tags
	}{
		{"untagged", data(router, ownMAC), "untagged"},
		{"its tag", tagged(data(router, ownMAC), tag50), "VLAN 50"},
		{"its tags", tagged(data(router, ownMAC), s100, c200), "VLAN 100ad.200"},
		{"another VLAN", tagged(data(router, ownMAC), tag60), ""},
		{"priority and DEI bits", tagged(data(router, ownMAC), tag(ether.Dot1Q, 0xf000|50)), "VLAN 50"},
		{"the same VLAN of another kind", tagged(data(router, ownMAC), tag(ether.Dot1AD, 50)), ""},
		{"the outer tag alone", tagged(data(router, ownMAC), s100), ""},
		{"the inner tag alone", tagged(data(router, ownMAC), c200), ""},
		{"swapped", tagged(data(router, ownMAC), c200, s100), ""},
		{"one tag more", tagged(data(router, ownMAC), tag50, tag60), ""},
		{"its tag after another", tagged(data(router, ownMAC), tag60, tag50), ""},
		{"a third", tagged(data(router, ownMAC), s100, c200, tag60), ""},
		{"a third of VID 0", tagged(data(router, ownMAC), s100, c200, tag(ether.Dot1Q, 0)), ""},
		{"a fourth", tagged(data(router, ownMAC), s100, c200, tag60, tag50), ""},
		{"a priority tag", tagged(data(router, ownMAC), tag(ether.Dot1Q, 0)), ""},
		{"VID 4095", tagged(data(router, ownMAC), tag(ether.Dot1Q, 4095)), ""},
		{"a TPID from before 802.1ad", tagged(data(router, ownMAC), tag(0x9100, 50)), ""},
		{"0x9200", tagged(data(router, ownMAC), tag(0x9200, 50)), ""},
		{"0x9300", tagged(data(router, ownMAC), tag(0x9300, 50)), ""},
		{"a tag cut off", tagged(data(router, ownMAC), tag50)[:14], ""},
		{"a tag cut short", tagged(data(router, ownMAC), tag50)[:17], ""},
		{"a second tag cut off", tagged(data(router, ownMAC), tag50, tag60)[:18], ""},
		{"to all", tagged(data(broadcast, ownMAC), tag50), "VLAN 50"},
		{"nothing after the tags", tagged(data(router, ownMAC), s100, c200)[:22], "VLAN 100ad.200"},
	}
	for _, tags := range []ether.Tags{nil, vlan50, qinq} {
		for _, enforce := range []bool{true, false} {
			k := mustKit(t)
			e := verify.Endpoint{MAC: ownMAC, Tags: tags, Enforce: enforce}
			must(t, k.expect(e))
			var want verify.Counters
			for _, c := range cases {
				verdict := next
				if c.right == tags.String() {
					want.OutFrames++
					want.OutBytes += uint64(len(c.frame))
				} else if want.OutWrong++; enforce {
					want.Dropped++
					verdict = shot
				}
				if got := k.out(t, c.frame); got != verdict {
					t.Errorf("%s, enforce %v: a frame with %s got %#x, want %#x", tags, enforce, c.name, got, verdict)
				}
				if got := k.mustEvidence(t, e).Counters; got != want {
					t.Errorf("%s, enforce %v, after a frame with %s: %+v, want %+v", tags, enforce, c.name, got, want)
					want = got
				}
				// The same frame from an unleased MAC passes, and counts for no endpoint.
				copy(c.frame[6:], claimant[:])
				if got := k.out(t, c.frame); got != next {
					t.Errorf("%s from a MAC that is not watched got %#x", c.name, got)
				}
				copy(c.frame[6:], ownMAC[:])
			}
			if got := k.mustEvidence(t, e).Counters; got != want {
				t.Errorf("after other MACs' frames: %+v, want %+v", got, want)
			}
		}
	}
}

// TestTagsIn checks how inbound frames are counted by their tags. None is dropped.
func TestTagsIn(t *testing.T) {
	k := mustKit(t)
	e := verify.Endpoint{MAC: ownMAC, Tags: vlan50, Enforce: true}
	must(t, k.expect(e))
	u := verify.Endpoint{MAC: sibling, Enforce: true}
	must(t, k.expect(u))
	zero := tag(ether.Dot1Q, 0)
	for _, c := range []struct {
		name   string
		frame  []byte
		to     verify.Endpoint
		change func(*verify.Counters)
	}{
		{"right", tagged(data(ownMAC, router), tag50), e, func(c *verify.Counters) { c.InFrames++; c.InBytes += 64 }},
		{"untagged", data(ownMAC, router), e, func(c *verify.Counters) { c.InWrong++ }},
		{"wrong", tagged(data(ownMAC, router), tag60), e, func(c *verify.Counters) { c.InWrong++ }},
		{"one more", tagged(data(ownMAC, router), tag50, tag60), e, func(c *verify.Counters) { c.InWrong++ }},
		{"to all", tagged(data(broadcast, router), tag50), e, func(*verify.Counters) {}},
		{"untagged, for the untagged", data(sibling, router), u, func(c *verify.Counters) { c.InFrames++; c.InBytes += 60 }},
		{"a priority tag, which is not a VLAN", tagged(data(sibling, router), zero), u,
			func(c *verify.Counters) { c.InFrames++; c.InBytes += 64 }},
		{"a priority tag before the right one", tagged(data(ownMAC, router), zero, tag50), e,
			func(c *verify.Counters) { c.InFrames++; c.InBytes += 68 }},
		{"tagged, for the untagged", tagged(data(sibling, router), tag50), u, func(c *verify.Counters) { c.InWrong++ }},
	} {
		want := k.mustEvidence(t, c.to).Counters
		c.change(&want)
		if ret := k.in(t, c.frame); ret != next {
			t.Errorf("%s: got %#x: inbound frames must not be dropped", c.name, ret)
		}
		if got := k.mustEvidence(t, c.to).Counters; got != want {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
	}
}

// TestSharedMAC has one MAC on two VLANs, which is allowed only if neither endpoint is restricted
// to its own tags.
func TestSharedMAC(t *testing.T) {
	k := mustKit(t)
	a := verify.Endpoint{MAC: ownMAC, Tags: vlan50, Attachment: verify.ID{1}}
	b := verify.Endpoint{MAC: ownMAC, Tags: vlan60, Attachment: verify.ID{2}}
	must(t, k.expect(a))
	must(t, k.expect(b))
	k.out(t, tagged(data(router, ownMAC), tag50))
	k.out(t, tagged(data(router, ownMAC), tag60))
	k.out(t, tagged(data(router, ownMAC), tag60))
	for _, c := range []struct {
		to   verify.Endpoint
		want uint64
	}{{a, 1}, {b, 2}} {
		if got := k.mustEvidence(t, c.to).Counters; got.OutFrames != c.want || got.OutWrong != 0 {
			t.Errorf("%s: %+v, want %d frames", c.to.Tags, got, c.want)
		}
	}
	b.Enforce = true
	const refused = "the MAC is already in use there, by attachment 01000000000000000000000000000000 (VLAN 50): " +
		"choose another"
	must(t, k.forget(b))
	if err := k.expect(b); err == nil || err.Error() != refused {
		t.Errorf("a MAC restricted to its tags that is also on another VLAN: %v, want %q", err, refused)
	}
	b.Enforce = false
	must(t, k.expect(b))
	must(t, k.forget(a))
	k.out(t, tagged(data(router, ownMAC), tag50))
	if got := k.mustEvidence(t, b).Counters; got.OutFrames != 0 || got.OutWrong != 1 {
		t.Errorf("after the first was forgotten, the second has %+v", got)
	}
	b.Enforce = true
	must(t, k.expect(b))
	if ret := k.out(t, tagged(data(router, ownMAC), tag50)); ret != shot {
		t.Errorf("after the other was forgotten, its VLAN got %#x", ret)
	}
	must(t, k.forget(b))
	k.mustEmpty(t, "both forgotten")
}

// TestSegments runs the programs over buffers that are several frames on the wire.
func TestSegments(t *testing.T) {
	k := mustKit(t)
	e := verify.Endpoint{MAC: ownMAC, Tags: vlan50, Enforce: true}
	must(t, k.expect(e))
	for _, c := range []struct {
		prog  *ebpf.Program
		frame []byte
	}{
		{k.Egress, tagged(data(router, ownMAC), tag50)}, {k.Egress, tagged(data(router, ownMAC), tag60)},
		{k.Ingress, tagged(data(ownMAC, router), tag50)}, {k.Ingress, tagged(data(ownMAC, router), tag60)},
	} {
		mustRet(t, c.prog, c.frame, 3, 20)
	}
	want := verify.Counters{OutFrames: 3, OutBytes: 64, InFrames: 3, InBytes: 64, OutWrong: 3, InWrong: 3, Dropped: 3}
	if got := k.mustEvidence(t, e).Counters; got != want {
		t.Errorf("three segments each: %+v, want %+v", got, want)
	}
}

// mappedMaps returns how many BPF maps are in the memory of this process.
func mappedMaps(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return strings.Count(string(b), "bpf-map")
}

// TestHistogram checks which VLANs inbound frames count for, also after the table was read, and that
// closing the trunk takes the table out of memory.
func TestHistogram(t *testing.T) {
	mapped := mappedMaps(t)
	k := mustKit(t)
	if got, err := k.histogram(); err != nil || len(got) > 0 {
		t.Fatalf("before the first frame, heard %v (%v)", got, err)
	}
	if n := mappedMaps(t); n != mapped+1 {
		t.Errorf("%d maps are in memory after the table was read, want %d", n, mapped+1)
	}
	before := verify.Now()
	for _, f := range [][]byte{
		data(claimant, router), data(broadcast, router), tagged(data(claimant, router), tag50),
		tagged(data(broadcast, router), s100, c200), tagged(data(claimant, router), tag(ether.Dot1Q, 0)),
		tagged(data(claimant, router), tag(ether.Dot1Q, 4095)), tagged(data(claimant, router), tag60)[:15],
	} {
		k.in(t, f)
		k.out(t, f) // outbound frames do not count
	}
	after := verify.Now()
	got, err := k.histogram()
	must(t, err)
	want := map[uint16]uint64{0: 4, 50: 1, 100: 1, 4095: 1}
	if len(got) != len(want) {
		t.Errorf("heard %v, want VLANs %v", got, want)
	}
	for _, v := range got {
		if v.Frames != want[v.VID] || v.At < before || v.At > after {
			t.Errorf("VLAN %d: %+v, want %d frames between %d and %d", v.VID, v, want[v.VID], before, after)
		}
	}
	(&trunk{maps: k.maps}).close()
	if n := mappedMaps(t); n != mapped {
		t.Errorf("%d maps are in memory after the trunk was closed, want %d", n, mapped)
	}
}
