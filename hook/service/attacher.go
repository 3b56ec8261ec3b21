package service

import (
	"context"
	"fmt"

	"github.com/lanyard-net/lanyard/hook"
)

// attacher returns what attaches for the caller.
func (c *call) attacher() (hook.Attacher, error) {
	if !c.root {
		return logged{userAttacher{c.server.Users, c.caller}, c}, nil
	}
	if c.elsewhere != nil {
		return nil, fmt.Errorf("the service attaches no containers of another host: %w", c.elsewhere)
	}
	return logged{c.server.Root, c}, nil
}

// userAttacher attaches for one user.
type userAttacher struct {
	hook.CallerAttacher
	caller hook.Caller
}

// Attach implements [hook.Attacher]. Which pod a container belongs to is for the cluster's engine to
// say, which is root: a user that names a pod would get the addresses and the networks of one.
func (u userAttacher) Attach(ctx context.Context, r hook.Request) ([]hook.Attachment, error) {
	r.Pod = hook.Pod{}
	return u.AttachFor(ctx, u.caller, r)
}

// Detach implements [hook.Attacher].
func (u userAttacher) Detach(ctx context.Context, container string) error {
	return u.DetachFor(ctx, u.caller, container)
}

// logged logs what an attacher has done for a caller.
type logged struct {
	hook.Attacher
	*call
}

func (l logged) Attach(ctx context.Context, r hook.Request) ([]hook.Attachment, error) {
	l.identify(r.Container)
	got, err := l.Attacher.Attach(ctx, r)
	for _, a := range got {
		l.log.Info("attached", "network", a.Network, "interface", a.Interface, "parent", a.Parent,
			"addresses", a.Addrs, "mac", a.MAC, "verdict", a.Verdict.Code, "attachment", a.ID)
	}
	if err != nil { // the caller of Attach logs it
		l.log = l.log.With("networks", networksOf(r))
	}
	return got, err
}

func networksOf(r hook.Request) (names []string) {
	for _, w := range r.Wants {
		names = append(names, w.Network)
	}
	return names
}

func (l logged) Detach(ctx context.Context, container string) error {
	l.identify(container)
	return l.Attacher.Detach(ctx, container) // which logs what it has removed
}
