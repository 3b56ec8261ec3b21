package bpf

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

// tagsIn parses the tags of a frame a second time, for FuzzProgram. It returns the words that the
// program makes of them; a truncated tag has VID 0.
func tagsIn(frame []byte) (tags []uint32) {
	known := map[uint16]bool{0x8100: true, 0x88a8: true, 0x9100: true, 0x9200: true, 0x9300: true}
	for off := 12; off+2 <= len(frame) && len(tags) < 3; off += 4 {
		tpid := binary.BigEndian.Uint16(frame[off:])
		if !known[tpid] {
			break
		}
		if off+6 > len(frame) { // its VID, and the type behind it
			return append(tags, uint32(tpid)<<16)
		}
		tags = append(tags, uint32(tpid)<<16|uint32(binary.BigEndian.Uint16(frame[off+2:])&vidMask))
	}
	return tags
}

// FuzzProgram compares the program's reading of a frame's tags with a second implementation. Frames
// of unleased MACs are never dropped, and frames of a leased MAC with other tags never pass.
func FuzzProgram(f *testing.F) {
	for _, frame := range [][]byte{
		data(router, ownMAC), tagged(data(router, ownMAC), tag50), tagged(data(router, ownMAC), tag60, tag50),
		tagged(data(router, ownMAC), tag50)[:15], tagged(mustFrame(f)(arp.Probe(ownMAC, gw4)), tag50),
		tagged(mustFrame(f)(ndp.Probe(ownMAC, gw6)), s100, c200), tagged(mustFrame(f)(ndp.Announce(claimant, addr6)), tag50),
		tagged(data(router, ownMAC), tag(0x9100, 50), tag50, tag60, s100),
	} {
		f.Add(frame)
	}
	k := mustKit(f)
	e := watchedEndpoint()
	must(f, k.expect(e))
	f.Fuzz(func(t *testing.T, given []byte) {
		frame := slices.Clone(given)
		if len(frame) < 15 || len(frame) > 1500 {
			return
		}
		copy(frame[6:], ownMAC[:])
		if len(tagsIn(frame)) == 0 {
			frame[12], frame[13] = 0x08, 0x06 // the kernel checks IP headers before it runs a program
		}
		before := k.mustEvidence(t, e)
		ret := k.out(t, frame)
		after := k.mustEvidence(t, e)
		words := tagsIn(frame)
		right := len(words) == 1 && words[0] == uint32(ether.Dot1Q)<<16|50
		if right != (ret == next) || right != (after.Counters.OutFrames == before.Counters.OutFrames+1) ||
			right == (after.Counters.Dropped == before.Counters.Dropped+1) {
			t.Errorf("tags %#x got %#x; counters %+v, then %+v", words, ret, before.Counters, after.Counters)
		}
		copy(frame[6:], claimant[:])
		if ret := k.out(t, frame); ret != next {
			t.Errorf("a frame of an unleased MAC got %#x", ret)
		}
		copy(frame, ownMAC[:])
		if ret := k.in(t, frame); ret != next {
			t.Errorf("inbound: got %#x", ret)
		}
	})
}
