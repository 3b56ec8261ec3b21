// Lanyard-hook is the OCI hook: the runtime's state on stdin, an exit status,
// one line on stderr. It stands on the path of every container start, so it
// carries no command line framework, no HTTP and no RPC.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/broker"
	"github.com/lanyard-net/lanyard/hook/link"
)

const usage = `lanyard-hook: attach containers to the LAN (an OCI hook; the state comes on stdin)

usage: lanyard-hook [--root DIR] [--timeout 10s] createRuntime|prestart|createContainer|poststop

In config.json:
  "hooks": {
    "createRuntime":   [{"path": "/usr/local/libexec/lanyard/lanyard-hook", "args": ["lanyard-hook", "createRuntime"]}],
    "createContainer": [{"path": "/usr/local/libexec/lanyard/lanyard-hook", "args": ["lanyard-hook", "createContainer"]}],
    "poststop":        [{"path": "/usr/local/libexec/lanyard/lanyard-hook", "args": ["lanyard-hook", "poststop"]}]
  }
createContainer is for name resolution alone: it writes /etc/resolv.conf where the
network has --dns and the container's engine gives it none.
Networks are made with "lanyard network create"; a container chooses one with
the annotation io.lanyard.network.

With LANYARD_TRACE=1 in the hook's "env", what each step took is kept ("lanyard
inspect ID --timing") and written to stderr.
`

// errUsage is returned when the hook was called in a way that it does not know.
var errUsage = errors.New("wrong usage")

// maxLine bounds the line, in bytes. It quotes annotations, whose authors may be
// hostile, and runc keeps all of a hook's stderr in memory.
const maxLine = 2 << 10

// grace is what taking back may need when the time is over.
const grace = 5 * time.Second

func main() {
	// Nothing here runs side by side: with a second processor the runtime wakes threads
	// that look for work and find none, fifty times in an attach.
	runtime.GOMAXPROCS(1)
	growStack()
	os.Exit(status(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr), os.Stderr))
}

// stack is how much an attach needs, in bytes.
const stack = 24 << 10

// growStack has the stack grow at once while there is next to nothing on it: the
// runtime doubles it whenever it is full, and moves all that is there.
//
//go:noinline
func growStack() {
	var frame [stack]byte
	runtime.KeepAlive(&frame)
}

// status says what went wrong in one line: runc puts all of stderr into the
// error that its user sees.
func status(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	line := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(line) > maxLine {
		line = line[:maxLine] + "…"
	}
	fmt.Fprintln(stderr, "lanyard: "+line)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	trace := newTrace()
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.help {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	if o.trace = trace; trace != nil {
		defer printTrace(stderr, trace)
	}
	// The runtime may set no timeout of its own, and would then wait for ever.
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after %s (--timeout)", o.timeout))
	defer cancel()
	// Not everything looks at a context: stdin that nobody closes, a lock that is
	// held for ever. What is on record then is swept.
	defer time.AfterFunc(o.timeout+grace, func() { os.Exit(status(context.Cause(ctx), stderr)) }).Stop()
	state, err := hook.ReadState(stdin)
	if err != nil {
		return err
	}
	err = o.stage(ctx, o, state)
	if err != nil {
		tell(o, state.ID, err)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// tellTime bounds leaving a message behind.
const tellTime = time.Second

// tell leaves behind, for "lanyard why", what the operator would not see otherwise: crun
// sends a hook's stderr to /dev/null. A user's is left with the broker. Root's is left in
// a directory, because root's containers need no broker.
func tell(o options, id string, why error) {
	line := strings.ReplaceAll(why.Error(), "\n", "; ")
	// Where it cannot be left, that is no reason to say something else than why.
	if link.HostsRoot() {
		_ = broker.Kept(o.paths.Failures()).Add(id, line)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	_ = broker.Client{Socket: o.paths.Socket}.Tell(ctx, id, line)
}

// options are what the hook's arguments say.
type options struct {
	stage   func(context.Context, options, *specs.State) error
	paths   wiring.Paths
	timeout time.Duration
	trace   *hook.Trace // nil: nobody asked
	help    bool
}

// stages by the names of the OCI runtime spec (config.md, "POSIX-platform
// Hooks"). prestart is what older configurations list; where both are listed,
// the second finds the attachment of the first.
var stages = map[string]func(context.Context, options, *specs.State) error{
	"createRuntime":   attach,
	"createContainer": resolve,
	"prestart":        attach,
	"poststop":        detach,
}

func parse(args []string) (o options, err error) {
	o = options{paths: wiring.DefaultPaths(), timeout: 10 * time.Second}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch arg {
		case "-h", "--help":
			o.help = true
			return o, nil
		case "--root", "--timeout":
			if len(args) == 0 {
				return o, fmt.Errorf("%w: %s needs a value", errUsage, arg)
			}
			if err := o.set(arg, args[0]); err != nil {
				return o, err
			}
			args = args[1:]
		default:
			if stages[arg] == nil || o.stage != nil {
				return o, fmt.Errorf("%w: %q: use createRuntime, prestart, createContainer or poststop (see lanyard-hook --help)", errUsage, arg)
			}
			o.stage = stages[arg]
		}
	}
	if o.stage == nil {
		return o, fmt.Errorf("%w: name the stage: createRuntime, prestart, createContainer or poststop (see lanyard-hook --help)", errUsage)
	}
	return o, nil
}

func (o *options) set(flag, value string) (err error) {
	switch flag {
	case "--root":
		o.paths = wiring.PathsUnder(value)
	case "--timeout":
		if o.timeout, err = time.ParseDuration(value); err != nil || o.timeout <= 0 {
			return fmt.Errorf("%w: --timeout %q: use a duration such as 10s", errUsage, value)
		}
	}
	return nil
}

func attach(ctx context.Context, o options, state *specs.State) error {
	req, ours, err := hook.Parse(state)
	if err != nil || !ours {
		return err
	}
	return withAttacher(o, func(a hook.Attacher) error {
		req.Trace = o.trace
		o.trace.Mark("open")
		_, err := a.Attach(ctx, req)
		return err
	})
}

// resolve tells the container of its networks' name servers.
func resolve(_ context.Context, o options, state *specs.State) error {
	return hook.GiveResolvConf(o.paths.Networks, state)
}

func detach(ctx context.Context, o options, state *specs.State) error {
	if !hook.Ours(state) {
		return nil
	}
	return withAttacher(o, func(a hook.Attacher) error { return a.Detach(ctx, state.ID) })
}

// withAttacher runs f with what attaches. What that has to say beside its errors
// (a damaged database was moved aside, and where to) joins them in the one line.
func withAttacher(o options, f func(hook.Attacher) error) error {
	var notes strings.Builder
	a, parts, err := wiring.Attacher(o.paths, slog.New(slog.NewTextHandler(&notes, nil)))
	if err != nil {
		return err
	}
	defer parts.Close()
	err = f(a)
	if notes.Len() == 0 {
		return err
	}
	if err != nil {
		return errors.Join(err, errors.New(strings.TrimSpace(notes.String())))
	}
	fmt.Fprint(os.Stderr, notes.String())
	return nil
}
