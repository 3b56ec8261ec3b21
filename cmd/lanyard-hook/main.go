// Lanyard-hook is the OCI hook. It reads the runtime's state from stdin, and reports by
// its exit status and one line on stderr. Every container start runs it, so it links no
// command line framework, no HTTP and no RPC.
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
	"github.com/lanyard-net/lanyard/hook/oci"
)

const usage = `lanyard-hook: attach containers to the LAN (an OCI hook; reads the state from stdin)

usage: lanyard-hook [--root DIR] [--timeout DURATION] createRuntime|prestart|createContainer|poststop

In config.json:
  "hooks": {
    "createRuntime":   [{"path": "/usr/local/libexec/lanyard/lanyard-hook", "args": ["lanyard-hook", "createRuntime"]}],
    "createContainer": [{"path": "/usr/local/libexec/lanyard/lanyard-hook", "args": ["lanyard-hook", "createContainer"]}],
    "poststop":        [{"path": "/usr/local/libexec/lanyard/lanyard-hook", "args": ["lanyard-hook", "poststop"]}]
  }
createContainer is for name resolution only: it writes /etc/resolv.conf if the network
has --dns and the container's engine provides none.
"lanyard network create" defines networks. A container chooses one by the annotation
io.lanyard.network.

Options:
  --root DIR          directory for definitions, records and pins (for tests)
  --timeout DURATION  maximum time for the hook (default: 10s)

With LANYARD_TRACE=1 in the hook's "env", the time of each step is recorded ("lanyard
inspect --timing ID") and written to stderr.
`

// errUsage is returned when the hook's arguments are wrong.
var errUsage = errors.New("wrong usage")

// maxLine is the maximum length of the line on stderr, in bytes. The line quotes
// annotations, which are untrusted, and runc keeps all of a hook's stderr in memory.
const maxLine = 2 << 10

// grace is the time for undoing the attach after the timeout.
const grace = 5 * time.Second

func main() {
	// The hook has no parallel work. With a second processor the runtime would wake threads
	// that find no work, fifty times per attach.
	runtime.GOMAXPROCS(1)
	os.Exit(status(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr), os.Stderr))
}

// status prints the error in one line and returns the exit status. runc puts all of stderr
// into the error that its user sees.
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
	// The runtime may have no timeout, and would then wait without end.
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after %s (--timeout)", o.timeout))
	defer cancel()
	// Some operations ignore the context: reading a stdin that is never closed, waiting for
	// a lock that is never released. The sweep removes what is on record then.
	defer time.AfterFunc(o.timeout+grace, func() { os.Exit(status(context.Cause(ctx), stderr)) }).Stop()
	state, err := oci.ReadState(stdin)
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

// tellTime is the deadline for sending a message to the broker.
const tellTime = time.Second

// tell leaves the error for "lanyard why": crun sends a hook's stderr to /dev/null. A user's
// error goes to the broker. Root's goes to a directory, because root's containers need no
// broker.
func tell(o options, id string, why error) {
	line := strings.ReplaceAll(why.Error(), "\n", "; ")
	// Errors of Add and Tell are ignored: the caller reports why, which matters more.
	if link.HostsRoot() {
		_ = broker.Kept(o.paths.Failures()).Add(id, line)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	_ = broker.Client{Socket: o.paths.Socket}.Tell(ctx, id, line)
}

// options are the parsed arguments of the hook.
type options struct {
	stage   func(context.Context, options, *specs.State) error
	paths   wiring.Paths
	timeout time.Duration
	trace   *hook.Trace // nil without LANYARD_TRACE=1
	help    bool
}

// stages maps the stage names of the OCI runtime spec (config.md, "POSIX-platform Hooks").
// Older configurations list prestart. If a configuration lists both, the second call finds
// the attachment of the first.
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
				return o, fmt.Errorf("%w: %q: use createRuntime, prestart, createContainer or poststop (see lanyard-hook --help)",
					errUsage, arg)
			}
			o.stage = stages[arg]
		}
	}
	if o.stage == nil {
		return o, fmt.Errorf("%w: name the stage: createRuntime, prestart, createContainer or poststop (see lanyard-hook "+
			"--help)", errUsage)
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
	req, ours, err := oci.Parse(state)
	if err == nil && !ours && os.Getenv("LANYARD_REQUIRED") != "" {
		return fmt.Errorf("container %q asks for Lanyard's device, and has no annotation io.lanyard.network: "+
			"add --annotation io.lanyard.network=NETWORK, or leave the device out", state.ID)
	}
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

// resolve writes the name servers of its networks to the container's resolv.conf.
func resolve(_ context.Context, o options, state *specs.State) error {
	return oci.GiveResolvConf(o.paths.Networks, state)
}

func detach(ctx context.Context, o options, state *specs.State) error {
	if !oci.Ours(state) {
		return nil
	}
	return withAttacher(o, func(a hook.Attacher) error { return a.Detach(ctx, state.ID) })
}

// withAttacher opens an attacher and runs f with it. The attacher's log messages (such as:
// a damaged database was moved to another name) are joined to the error, in one line.
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
