package probe

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// filter returns the program of a packet socket that receives ARP, and the three ICMPv6 types with
// which routers advertise themselves and neighbours ask and answer. A station in VLAN 60 is not a
// claimant on the untagged network: see [ether.FromLAN].
func filter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble(append(ether.FromLAN(),
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
	))
}
