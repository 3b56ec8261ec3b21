package oci

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
)

// Stages of a hook (OCI runtime spec, config.md, "POSIX-platform Hooks"). Older configurations
// list prestart. If a configuration lists prestart and createRuntime, the second call finds the
// attachment of the first.
const (
	CreateRuntime   = "createRuntime"
	Prestart        = "prestart"
	CreateContainer = "createContainer"
	Poststop        = "poststop"
)

// Stages are the stages that Lanyard has a hook for.
var Stages = []string{CreateRuntime, Prestart, CreateContainer, Poststop}

// Hook is one call of a hook.
type Hook struct {
	Stage    string
	State    *specs.State
	Networks string      // directory of the definitions
	Names    string      // directory of the name servers from DHCP servers
	Trace    *hook.Trace // nil: no trace
	// Open returns the attacher. It is called only if the state has an annotation of Lanyard's.
	Open func() (hook.Attacher, error)
}

// Run carries out the call. It does nothing if the state has no annotation of Lanyard's. If ctx
// ends, the error has its cause.
func (h Hook) Run(ctx context.Context) error {
	err := h.run(ctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

func (h Hook) run(ctx context.Context) error {
	switch h.Stage {
	case CreateContainer:
		return GiveResolvConf(h.Networks, h.Names, h.State)
	case Poststop:
		if !Ours(h.State) {
			return nil
		}
		a, err := h.Open()
		if err != nil {
			return err
		}
		return a.Detach(ctx, h.State.ID)
	}
	r, ours, err := Parse(h.State)
	if err != nil || !ours {
		return err
	}
	a, err := h.Open()
	if err != nil {
		return err
	}
	r.Trace = h.Trace
	r.Trace.Mark("open")
	_, err = a.Attach(ctx, r)
	return err
}

// ValidStage reports whether Lanyard has a hook for a stage.
func ValidStage(stage string) bool { return slices.Contains(Stages, stage) }

// maxLine is the maximum length of a line for a runtime, in bytes. The line quotes annotations,
// which are hostile, and runc keeps all of a hook's stderr in memory.
const maxLine = 2 << 10

// Line returns an error as one line of bounded length. runc puts all of a hook's stderr into the
// error that its user sees.
func Line(err error) string {
	line := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(line) > maxLine {
		line = line[:maxLine] + "…"
	}
	return line
}
