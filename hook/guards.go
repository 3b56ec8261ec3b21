package hook

import (
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// Guards is the guards: the tc programs that enforce permits. There are two kinds: those on the
// links of a guarded attachment, and those at the egress of a parent. Package bpf implements it. A
// parent is an ifindex.
type Guards interface {
	// Admit makes the links of a guarded attachment pass the frames that carry its addresses
	// and MAC, and no others. It must be called on a thread in the namespace of the links.
	Admit(verify.Guard) error
	// Forget makes the links pass no frames. An unknown guard is not an error.
	Forget(verify.Guard) error
	// Guarded returns the counters of passed and dropped frames.
	Guarded(verify.Guard) (verify.Guarded, error)

	// GuardParent guards a parent: only frames with a permit or with one of the host's MACs can leave
	// by it.
	GuardParent(parent int, host []ether.MAC) error
	// ParentGuarded reports whether a parent is guarded.
	ParentGuarded(parent int) (bool, error)
	// UnguardParent removes the guard of a parent, and all frames can leave.
	UnguardParent(parent int) error
	// Permit adds a permit for g's MAC and addresses at a parent. It does not use g's links.
	Permit(parent int, g verify.Guard) error
	// Revoke removes the permit of a MAC.
	Revoke(parent int, mac ether.MAC) error
	// Permitted returns the counters of the frames that a MAC has sent by a parent, and of those
	// that were dropped. The zero MAC selects the frames of all MACs without a permit.
	Permitted(parent int, mac ether.MAC) (verify.Guarded, error)
}
