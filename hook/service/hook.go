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
