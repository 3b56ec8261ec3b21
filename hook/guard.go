package hook

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// Guards hold the frames of guarded attachments to their leases. Admit belongs
// on a thread in the namespace that has the links. Implemented by package bpf.
type Guards interface {
	// Admit lets pass what carries the lease, and nothing else.
	Admit(verify.Guard) error
	// Forget lets nothing pass any more; an unknown guard is nil.
	Forget(verify.Guard) error
	// Guarded gives what has been let through and stopped.
	Guarded(verify.Guard) (verify.Guarded, error)

	// Hold lets leave by a parent what carries a lease, or one of the host's
	// MACs, and nothing else; Free lets all leave again.
	Hold(parent int, host []verify.MAC) error
	Held(parent int) (bool, error)
	Free(parent int) error
	// Lease lets leave what carries the lease; its links do not matter.
	Lease(parent int, g verify.Guard) error
	Unlease(parent int, mac verify.MAC) error
	// Leased gives what a MAC has sent by a parent, and what it was not let; no
	// MAC stands for all that have no lease.
	Leased(parent int, mac verify.MAC) (verify.Guarded, error)
}

// errNoGuards is returned where nobody has made the namespace for guarded
// attachments, which "lanyard serve" does.
var errNoGuards = errors.New("guarded attachments are the broker's to make")

// guardTag names the links of a guarded attachment: deleting them must need no
// more than the intent.
func guardTag(id verify.ID) string { return id.String()[20:] }

func (l *Local) openGuards() (*link.Netns, error) {
	if l.Guards == nil {
		return nil, errNoGuards
	}
	return l.Host.OpenNetnsPath(l.GuardNetns)
}

// dropGuarded takes the links away first: what is in their queues goes with
// them.
func (l *Local) dropGuarded(a Attachment) error {
	guards, err := l.openGuards()
	if err != nil {
		return err
	}
	defer guards.Close()
	return errors.Join(guards.DeleteGuarded(guardTag(a.ID)), l.Guards.Forget(*a.Guard))
}

// Guarded is what the guard of an attachment has let through and stopped; nil
// where there is none.
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
