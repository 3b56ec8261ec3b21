package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/oci"
	"github.com/lanyard-net/lanyard/hook/service/wire"
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

// hook carries out a stage of an OCI hook.
func (c *call) hook(ctx context.Context, m *request) []byte {
	state, err := oci.ReadState(bytes.NewReader(m.State))
	switch {
	case err != nil:
		return append([]byte{wire.NotMine}, oci.Line(err)...)
	case !oci.ValidStage(m.Stage):
		return append([]byte{wire.NotMine}, fmt.Sprintf("%.20q is no stage of a hook", m.Stage)...)
	case m.Stage == oci.CreateContainer:
		return c.giveResolvConf(state)
	case c.elsewhere != nil:
		c.log.Debug("left a container to its hook", "container", state.ID, "why", c.elsewhere)
		return []byte{wire.NotMine}
	}
	if m.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.Timeout, fmt.Errorf("not done after %s (--timeout)", m.Timeout))
		defer cancel()
	}
	h := oci.Hook{Stage: m.Stage, State: state, Networks: c.server.Networks, Open: c.attacher}
	if m.Trace {
		h.Trace = hook.NewTrace()
	}
	c.log = c.log.With("stage", m.Stage)
	c.identify(state.ID)
	if err := h.Run(ctx); err != nil {
		line := oci.Line(errors.New(c.errorText(err)))
		c.keep(state.ID, line)
		return append([]byte{wire.Failed}, line...)
	}
	return append([]byte{wire.Done}, h.Trace.String()...)
}

// giveResolvConf answers at createContainer. The resolv.conf is mounted by the hook itself, which is in the
// container's mount namespace. Most networks name no servers, and then there is nothing to do. A
// user is not told which do.
func (c *call) giveResolvConf(state *specs.State) []byte {
	if c.root && c.elsewhere == nil {
		if names, err := oci.NamesServers(c.server.Networks, state); err == nil && !names {
			return []byte{wire.Done}
		}
	}
	return []byte{wire.NotMine}
}
