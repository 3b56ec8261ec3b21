package probe

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filter lets a packet socket hear ARP, and ICMPv6 of the three types in which
// routers tell of themselves, and neighbours ask and answer for one another, from outside and without a tag. The tag counts
// where the kernel keeps it beside the packet: a macvlan on a trunk is given
// the frames of those VLANs that the host has no interface for, and a rival
// in VLAN 60 is none on the network without tags.
func filter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 11},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 9},
		bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 20, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: 54, Size: 1}, // ICMPv6 type: 134 is a router's, 135 solicits, 136 advertises
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 134, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 136, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}
