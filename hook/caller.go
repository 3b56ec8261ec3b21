package hook

import (
	"context"
	"errors"
)

// Caller is a user without privilege that a service attaches for. All fields come from the kernel
// (SO_PEERCRED), none from the caller's request.
type Caller struct {
	UID  uint32
	GIDs []uint32 // all groups of the caller's process
}

// CallerAttacher attaches and detaches containers for users without privilege. Its methods return an
// error that wraps ErrRefused if the caller is not authorized.
type CallerAttacher interface {
	// AttachFor is [Attacher.Attach] for the caller.
	AttachFor(ctx context.Context, c Caller, r Request) ([]Attachment, error)
	// DetachFor is [Attacher.Detach] for the caller's attachments.
	DetachFor(ctx context.Context, c Caller, containerID string) error
}

// ErrRefused is returned for a Caller that is not authorized. Errors that are joined with it are
// for the operator's log only: they would tell the caller which networks, processes and namespaces
// other users have.
var ErrRefused = errors.New("refused")
