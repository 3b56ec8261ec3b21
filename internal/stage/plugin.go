package stage

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/lanyard-net/lanyard/hook/cni"
	"github.com/lanyard-net/lanyard/hook/netavark"
	"github.com/lanyard-net/lanyard/hook/service/wire"
	"github.com/lanyard-net/lanyard/internal/wiring"
)

// Plugin is one command of a plugin.
type Plugin struct {
	Paths   wiring.Paths
	Name    string // "cni" or "netavark"
	Command string
	Netns   string // of netavark's setup
	Timeout time.Duration
	Stdin   io.Reader // the plugin's input
	Stdout  io.Writer
}

// PluginOf returns the command that a plugin has passed on: its name, the command, and for netavark
// the path of the network namespace. ok is false for other arguments.
func PluginOf(o Options, args []string) (p Plugin, ok bool) {
	p = Plugin{Paths: o.Paths, Timeout: o.Timeout, Stdin: o.Stdin, Stdout: os.Stdout}
	switch {
	case len(args) == 2 && args[0] == "cni":
		p.Name, p.Command = args[0], args[1]
	case len(args) == 3 && args[0] == "netavark":
		p.Name, p.Command, p.Netns = args[0], args[1], args[2]
	default:
		return p, false
	}
	return p, true
}

// Run carries out the command, and prints its output, also of a failure. It returns the exit status.
func (p Plugin) Run(ctx context.Context) (status int) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	// Some operations ignore the context. The runtime calls DEL, and the sweep removes what is on record.
	defer time.AfterFunc(p.Timeout+wire.Grace, func() {
		_, _ = p.Stdout.Write(p.failure(context.DeadlineExceeded))
		os.Exit(1)
	}).Stop()
	output, err := p.output(ctx)
	if err != nil {
		status = 1
	}
	if _, err := p.Stdout.Write(output); err != nil {
		status = 1
	}
	return status
}

func (p Plugin) output(ctx context.Context) ([]byte, error) {
	input, err := io.ReadAll(p.Stdin)
	if err != nil {
		return p.failure(err), err
	}
	l, err := wiring.OpenPrivileged(p.Paths)
	if err != nil {
		return p.failure(err), err
	}
	defer l.Close()
	if p.Name == "netavark" {
		return netavark.Plugin{Attacher: l, Networks: l.Networks}.Run(ctx, p.Command, p.Netns, input)
	}
	return cni.Plugin{Attacher: l, Host: l, Networks: l.Networks}.Run(ctx, p.Command, input)
}

func (p Plugin) failure(err error) []byte {
	if p.Name == "netavark" {
		return netavark.Failure(err)
	}
	return cni.Failure(err)
}
