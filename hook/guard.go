package hook

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook/link"
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

	// Hold guards a parent: only frames with a permit or with one of the host's MACs can leave
	// by it.
	Hold(parent int, host []verify.MAC) error
	// Held reports whether a parent is guarded.
	Held(parent int) (bool, error)
	// Free removes the guard of a parent, and all frames can leave.
	Free(parent int) error
	// Lease adds a permit for g's MAC and addresses at a parent. It does not use g's links.
	Lease(parent int, g verify.Guard) error
	// Unlease removes the permit of a MAC.
	Unlease(parent int, mac verify.MAC) error
	// Leased returns the counters of the frames that a MAC has sent by a parent, and of those
	// that were dropped. The zero MAC selects the frames of all MACs without a permit.
	Leased(parent int, mac verify.MAC) (verify.Guarded, error)
}

// errNoGuards is returned if this process has no namespace for guarded attachments. "lanyard serve"
// creates it.
var errNoGuards = errors.New("only the broker creates guarded attachments: run \"lanyard serve\"")

// guardTag returns the part of an id that the links of a guarded attachment are named after, so
// that they can be deleted when only the intent is known.
func guardTag(id verify.ID) string { return id.String()[20:] }

// openGuards opens the namespace of guarded attachments. It returns errNoGuards if this process
// creates no guards.
func (l *Local) openGuards() (*link.Netns, error) {
	if l.Guards == nil {
		return nil, errNoGuards
	}
	return l.Host.OpenNetnsPath(l.GuardNetns)
}

// dropGuarded deletes the links of a guarded attachment first, because that also drops the frames
// in their queues, and then its guard.
func (l *Local) dropGuarded(a Attachment) error {
	guards, err := l.openGuards()
	if err != nil {
		return err
	}
	defer guards.Close()
	return errors.Join(guards.DeleteGuarded(guardTag(a.ID)), l.Guards.Forget(*a.Guard))
}

// Guarded returns the counters of an attachment's guard, or nil if it has none.
func (l *Local) Guarded(a Attachment) (*verify.Guarded, error) {
	if l.Guards == nil {
		return nil, nil
	}
	var g verify.Guarded
	var err error
	switch {
	case a.Guard != nil && a.Guard.Inside != 0:
		g, err = l.Guards.Guarded(*a.Guard)
	case a.Guard == nil && a.AtParent && !a.MAC.IsZero():
		g, err = l.Guards.Leased(a.ParentIdx, a.MAC)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &g, nil
}
