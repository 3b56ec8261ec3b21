package service

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/cni"
	"github.com/lanyard-net/lanyard/hook/netavark"
	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// plugin carries out a command of a plugin, for root only. All others are refused before the path of
// the namespace is used.
func (c *call) plugin(ctx context.Context, m *request) []byte {
	if !c.root {
		return append([]byte{wire.NotMine}, "only root can attach by a plugin"...)
	}
	if c.elsewhere != nil {
		c.log.Debug("left a command to its plugin", "command", m.Command, "why", c.elsewhere)
		return []byte{wire.NotMine}
	}
	if err := m.sameNetns(); err != nil {
		return append([]byte{wire.NotMine}, err.Error()...)
	}
	a, err := c.attacher()
	if err != nil {
		return append([]byte{wire.NotMine}, err.Error()...)
	}
	if m.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.Timeout, fmt.Errorf("not done after %s", m.Timeout))
		defer cancel()
	}
	c.log = c.log.With("plugin", m.Verb, "command", m.Command)
	var output []byte
	switch m.Verb {
	case wire.VerbCNI:
		output, err = cni.Plugin{Attacher: a, Host: c.server.Host, Networks: c.server.Networks}.Run(ctx, m.Command, m.Input)
	case wire.VerbNetavark:
		output, err = netavark.Plugin{Attacher: a, Networks: c.server.Networks}.Run(ctx, m.Command, m.Netns, m.Input)
	}
	if err != nil {
		c.logFailed(err)
		return append([]byte{wire.Failed}, output...)
	}
	return append([]byte{wire.Done}, output...)
}

// sameNetns returns an error if the path of the namespace is another file for the service, which has
// a mount namespace of its own, or none. Some paths are hidden from it, such as those in /home.
func (m *request) sameNetns() error {
	if m.Netns == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(m.Netns, &st); err != nil {
		return fmt.Errorf("network namespace %.200q: %w", m.Netns, err)
	}
	if st.Ino != m.Inode {
		return fmt.Errorf("%.200q is another file in its mount namespace", m.Netns)
	}
	return nil
}
