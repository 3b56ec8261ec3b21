package attach

import (
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/verify"
)

// Guarded returns the counters of an attachment's guard, or nil if it has none.
func (l *Local) Guarded(a hook.Attachment) (*verify.Guarded, error) {
	var g verify.Guarded
	var err error
	switch {
	case a.Guard != nil && a.Guard.Inside != 0:
		g, err = l.Guards.Guarded(*a.Guard)
	case a.Guard == nil && a.AtParent && !a.MAC.IsZero():
		g, err = l.Guards.Permitted(a.ParentIdx, a.MAC)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &g, nil
}
