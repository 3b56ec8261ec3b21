package probe

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filter returns the program of a packet socket that receives ARP, and the three ICMPv6 types with
// which routers advertise themselves and neighbours ask and answer. The frames must come from
// another station and be of no VLAN. A tag that the kernel keeps in metadata counts, too: a macvlan
// on a trunk receives the frames of VLANs for which the host has no interface, and a station in
// VLAN 60 is not a claimant on the untagged network. A tag with VID 0 has a priority only (IEEE 802.1Q),
// and the kernel takes its frame as one without a tag.
func filter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0fff},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 11},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 9},
		bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 20, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: 54, Size: 1}, // ICMPv6 type: 134 RA, 135 NS, 136 NA
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 134, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 136, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}
