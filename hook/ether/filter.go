package ether

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// FromLAN returns the first instructions of a packet socket's filter. They reject what this host sends,
// and the frames of a VLAN, whose tag the kernel keeps in metadata: a macvlan on a trunk receives the
// frames of VLANs for which the host has no interface. A tag with VID 0 has a priority only (IEEE
// 802.1Q), and the kernel takes its frame as one without a tag. All other frames reach the instruction
// that the caller appends.
func FromLAN() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 4},
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0fff},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
}
