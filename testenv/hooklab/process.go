package hooklab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/internal/stage"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// asHook is an environment variable that makes a test binary run as the hook.
const asHook = "LANYARD_TEST_AS_HOOK"

// AsHook reports whether this process is a hook that a test has started. The hook's arguments are
// those of lanyard-hook: [--root DIR] STAGE.
func AsHook() bool { return os.Getenv(asHook) != "" }

// HookEnv is the environment in which a runtime runs the test binary as the hook.
func HookEnv() []string { return append(os.Environ(), asHook+"=1") }

// AsAttach reports whether this process is lanyard-attach, which a hook executes if there is no
// service.
func AsAttach() bool { return os.Args[0] == "lanyard-attach" }

// Failpoints are the steps of an attach after which tests kill the process that carries it out.
var Failpoints = []string{"intent", "lease", "record", "parent", "expect", "ask", "link", "probe", "address", "commit"}

// Main runs the tests of a package without a hook of its own: its TestMain calls Main. In processes
// that the tests start, Main runs the hook.
func Main(m *testing.M) {
	if AsHook() {
		RunHook()
	}
	os.Exit(m.Run())
}

// RunHook carries out a stage, or a command of a plugin, without a service, and exits as
// lanyard-attach does.
func RunHook() {
	exit := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "lanyard: "+err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	o, args := options(os.Args[1:])
	if p, ok := stage.PluginOf(o, args); ok {
		os.Exit(p.Run(context.Background()))
	}
	o.Stage = args[0]
	exit(stage.Run(context.Background(), o, exit))
}

// options parses the arguments of lanyard-hook or lanyard-attach:
// [--root DIR] [--timeout DURATION] STAGE, in any order of the options. It returns the others.
func options(args []string) (o stage.Options, rest []string) {
	o = stage.Options{Paths: wiring.DefaultPaths(), Timeout: 10 * time.Second, Stdin: os.Stdin, Stderr: os.Stderr}
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "--root":
			i++
			o.Paths = wiring.PathsUnder(args[i])
		case "--timeout":
			i++
			var err error
			if o.Timeout, err = time.ParseDuration(args[i]); err != nil {
				panic(err) // the hook has parsed it
			}
		default:
			rest = append(rest, args[i])
		}
	}
	return o, rest
}

// State returns what a runtime writes to the hook's stdin. Annotations are without their prefix.
func State(id string, pid int, annotations ...string) []byte {
	s := specs.State{Version: specs.Version, ID: id, Status: specs.StateCreating, Pid: pid,
		Annotations: map[string]string{}}
	for _, a := range annotations {
		k, v, _ := strings.Cut(a, "=")
		s.Annotations["io.lanyard."+k] = v
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a map of strings
	}
	return b
}

// Outcome is how a hook process ended.
type Outcome struct {
	Status int // -1 if a signal ended it
	Stderr string
}

// Ended returns the outcome of a command that has ended, and wrote to stderr.
func Ended(cmd *exec.Cmd, stderr *bytes.Buffer) Outcome {
	return Outcome{cmd.ProcessState.ExitCode(), stderr.String()}
}

// Command returns a hook process with additional environment. The caller runs it in the host's
// namespace.
func (w *Lab) Command(stdin []byte, args []string, env ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", w.Root}, args...)...)
	cmd.Env = append(HookEnv(), env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	return cmd, &stderr
}

// Run runs the hook to its end.
func (w *Lab) Run(stdin []byte, args []string, env ...string) Outcome {
	w.TB.Helper()
	cmd, stderr := w.Command(stdin, args, env...)
	err := w.Host.Run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.TB.Fatalf("run the hook: %v", err)
	}
	return Ended(cmd, stderr)
}

// Attach runs the hook as a runtime does at createRuntime.
func (w *Lab) Attach(id string, c *testenv.Container, annotations ...string) Outcome {
	w.TB.Helper()
	return w.Run(State(id, c.Pid, annotations...), []string{"createRuntime"})
}

// MustAttach is Attach for a container that must start without a message.
func (w *Lab) MustAttach(id string, c *testenv.Container, annotations ...string) {
	w.TB.Helper()
	if o := w.Attach(id, c, annotations...); o.Status != 0 || o.Stderr != "" {
		w.TB.Fatalf("attach %s: status %d: %s", id, o.Status, o.Stderr)
	}
}

// MustDetach runs the hook as a runtime does at poststop, without a pid.
func (w *Lab) MustDetach(id string) {
	w.TB.Helper()
	if o := w.Run(State(id, 0, "network=web"), []string{"poststop"}); o.Status != 0 || o.Stderr != "" {
		w.TB.Fatalf("detach %s: status %d: %s", id, o.Status, o.Stderr)
	}
}

// DetachAndEnd ends a container as an engine does: it kills the process, runs the hook, and closes
// the namespace.
func (w *Lab) DetachAndEnd(id string, c *testenv.Container) {
	w.TB.Helper()
	must(w.TB, c.Kill())
	w.MustDetach(id)
	c.End(w.TB)
}

// Refused checks that the hook failed with one line that contains the words.
func (w *Lab) Refused(what string, o Outcome, status int, words ...string) {
	w.TB.Helper()
	if o.Status != status || !strings.HasPrefix(o.Stderr, "lanyard: ") || strings.Count(o.Stderr, "\n") != 1 {
		w.TB.Errorf("%s: status %d, said %q; want status %d and one line", what, o.Status, o.Stderr, status)
		return
	}
	for _, word := range words {
		if !strings.Contains(o.Stderr, word) {
			w.TB.Errorf("%s: said %q, want %q in it", what, o.Stderr, word)
		}
	}
}
