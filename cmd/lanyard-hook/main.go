// Lanyard-hook is the OCI hook: a messenger. Every container start runs it, so it only forwards
// the runtime's state, which it does not decode: to the service ("lanyard serve"), or, if no
// service answers, to lanyard-attach, which it executes in its place. It reports by its exit
// status and one line on stderr.
package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/internal/messenger"
)

const usage = `lanyard-hook: attach containers to the LAN (an OCI hook; reads the state from stdin)

usage: lanyard-hook [--root DIR] [--timeout DURATION] [--attach FILE] createRuntime|prestart|createContainer|poststop

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

The service attaches, if it runs ("systemctl enable --now lanyard.socket"). Else
lanyard-attach does, which the hook executes.

Options:
  --root DIR          directory for definitions, records and pins (for tests)
  --timeout DURATION  maximum time for the hook (default: 10s)
  --attach FILE       the program that attaches without a service (default: lanyard-attach, in the
                      hook's directory)

With LANYARD_TRACE=1 in the hook's "env", the time of each step is recorded ("lanyard
inspect --timing ID") and written to stderr.
`

// options are the parsed arguments of the hook.
type options struct {
	messenger.Messenger
	stage  string
	attach string // the program to execute without a service; "": messenger.AttachFile
	help   bool
}

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status: 0, 1 for a failure, 2 for wrong usage. It does not return if it
// executes lanyard-attach.
func run(args []string) int {
	o, err := parse(args)
	switch {
	case err != nil:
		say(err.Error())
		return 2
	case o.help:
		_, _ = os.Stdout.WriteString(usage)
		return 0
	}
	// The runtime may have no timeout, and would then wait without end: for a stdin that is
	// never closed, or for a service that never finishes.
	defer o.Limit(func(text string) {
		say(text + " (--timeout)")
		os.Exit(1)
	}).Stop()
	state, ours, err := stateOf(os.Stdin, os.Getenv("LANYARD_REQUIRED") != "")
	switch {
	case err != nil:
		say(err.Error())
		return 1
	case !ours:
		return 0
	}
	text, ok, err := o.AskHook(o.stage, state)
	switch {
	case ok:
		_, _ = os.Stderr.WriteString(text)
		return 0
	case err == nil:
		say(text)
		return 1
	case !errors.Is(err, messenger.ErrNoService):
		say(err.Error() + ": the hook goes on without the service")
	}
	say(o.Execute(o.attach, state, o.stage).Error())
	return 1
}

// say prints one line to stderr.
func say(text string) {
	_, _ = os.Stderr.WriteString("lanyard: " + strings.ReplaceAll(text, "\n", "; ") + "\n")
}

func parse(args []string) (o options, err error) {
	o = options{Messenger: messenger.Messenger{
		Start: time.Now(), Timeout: 10 * time.Second, Remedy: "install it there, or name it with --attach",
	}}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch arg {
		case "-h", "--help":
			o.help = true
			return o, nil
		case "--root", "--timeout", "--attach":
			if len(args) == 0 {
				return o, usageError(arg + " needs a value")
			}
			if err := o.set(arg, args[0]); err != nil {
				return o, err
			}
			args = args[1:]
		case "createRuntime", "prestart", "createContainer", "poststop":
			if o.stage != "" {
				return o, usageError("two stages, " + o.stage + " and " + arg + ": name one")
			}
			o.stage = arg
		default:
			return o, usageError(strconv.Quote(arg) +
				": use createRuntime, prestart, createContainer or poststop (see lanyard-hook --help)")
		}
	}
	if o.stage == "" {
		return o, usageError("name the stage: createRuntime, prestart, createContainer or poststop (see lanyard-hook --help)")
	}
	return o, nil
}

func (o *options) set(flag, value string) (err error) {
	switch flag {
	case "--root":
		o.Root = value
	case "--attach":
		o.attach = value
	case "--timeout":
		if o.Timeout, err = time.ParseDuration(value); err != nil || o.Timeout <= 0 {
			return usageError("--timeout " + strconv.Quote(value) + ": use a duration such as 10s")
		}
	}
	return nil
}

func usageError(text string) error { return errors.New("wrong usage: " + text) }
