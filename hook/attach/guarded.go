package attach

import (
	"errors"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/verify"
)

// dropGuarded deletes the links of a guarded attachment first, because that also drops the frames
// in their queues, and then its guard.
func (l *Local) dropGuarded(a hook.Attachment) error {
	guards, err := l.OpenGuards()
	if err != nil {
		return err
	}
	defer guards.Close()
	return errors.Join(guards.DeleteGuarded(parts.GuardTag(a.ID)), l.Guards.Forget(*a.Guard))
}

// Guarded returns the counters of an attachment's guard, or nil if it has none.
func (l *Local) Guarded(a hook.Attachment) (*verify.Guarded, error) {
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
