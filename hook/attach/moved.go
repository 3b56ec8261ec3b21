package attach

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
)

// AnnounceMoved announces the addresses of all attachments on a trunk, given by its ifindex, because
// the trunk is connected to another switch port: the switch has learned their MACs on the earlier
// one. A recent kernel does this itself for the addresses of a macvlan, but not for ipvlans and
// guarded containers. It returns the number of attachments that it has announced.
func (l *Local) AnnounceMoved(ctx context.Context, trunk int) (announced int, err error) {
	recs, err := l.Attachments(ctx)
	for _, a := range recs {
		if a.Endpoint.Trunk != trunk || a.State != hook.Attached || len(a.Addrs) == 0 {
			continue
		}
		if aerr := l.announceFromParent(a); aerr != nil {
			err = errors.Join(err, fmt.Errorf("%q on network %q: %w", a.Interface, a.Network, aerr))
			continue
		}
		announced++
	}
	return announced, err
}

// announceFromParent announces the addresses of one attachment from its parent, once.
func (l *Local) announceFromParent(a hook.Attachment) error {
	t := attempt{verification: verification{Local: l, rec: a}}
	if _, err := l.Datapath.Evidence(a.Endpoint); err != nil {
		t.unwatched = err.Error()
	}
	return l.Host.Do(func() error { return t.announceFrom(a.ParentIdx, a.Parent, 1) })
}
