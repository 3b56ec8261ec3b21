package attach

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
)

// refuseCaller returns an error that wraps ErrRefused.
func refuseCaller(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{hook.ErrRefused}, args...)...)
}

// AttachFor is Attach for an untrusted caller: the process must be in a network namespace that the
// caller owns, and the networks must allow the caller. It returns an error that wraps ErrRefused if
// one of these is not so.
func (l *Local) AttachFor(ctx context.Context, c hook.Caller, r hook.Request) ([]hook.Attachment, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	ns, err := l.Host.OpenNetns(r.Pid)
	if err != nil {
		return nil, refuseCaller("container %q: %w", r.Container, err)
	}
	defer ns.Close()
	if err := checkOwns(c, ns); err != nil {
		return nil, refuseCaller("container %q: process %d: %w", r.Container, r.Pid, err)
	}
	return l.attachAll(ctx, r, ns, &c)
}

// checkOwns returns an error if the caller does not own the network namespace (netns.OwnerOf).
func checkOwns(c hook.Caller, ns *link.Netns) error {
	owners, err := ns.Owners()
	if err != nil {
		return err
	}
	owner, rootless := netns.OwnerOf(owners)
	switch {
	case !rootless:
		return errors.New("its network namespace is the host's own or a rootful container's")
	case owner != c.UID:
		return fmt.Errorf("its network namespace belongs to uid %d (owners from the inside out: %v)", owner, owners)
	}
	return nil
}

// DetachFor is Detach for the attachments of one caller. Attachments of other users with the same
// container id stay.
func (l *Local) DetachFor(ctx context.Context, c hook.Caller, containerID string) error {
	if err := hook.ValidID(containerID); err != nil {
		return err
	}
	return l.detach(ctx, containerID, func(a *hook.Attachment) bool { return a.Owner == c.UID })
}
