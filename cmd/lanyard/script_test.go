package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/testenv"
)

// Scripts run lanyard in the host's namespace of a lab of their own, with
// eth9 for a trunk and everything that it keeps below $ROOT and, of BPF, $PINS.
//
//	gateway PREFIX…               a station on the switch that holds the addresses
//	rival PREFIX ADDR             a station that takes an address and pings another from it
//	await FILE PATTERN            what a program in the background writes there comes to match
//	container ID                  a network namespace with a process in it, whose pid is $PID
//	attach ID KEY=VALUE…          what a runtime does: the hook, with these annotations
//	crash ID KEY=VALUE…           the same, killed while it waits for a silent gateway
//	end ID                        the container's process ends, and no poststop comes
//	fails STATUS PROGRAM ARG…     the exit status is this one, and every line on stderr is ours
//	inlab PROGRAM ARG…            (with exec) runs any program in the host's namespace
//	foreign DIRECTION ANSWER      another's program comes before ours on the trunk, and gives that answer
//	mask FILE                     replaces what differs from run to run
const (
	varNetns = "NETNS"
	varRoot  = "ROOT"
)

// trunkMAC is eth9's in every lab: veths have random ones.
const trunkMAC = "02:00:00:00:00:09"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lanyard": func() {
			enterNetns()
			at := 1
			if len(os.Args) > 1 && os.Args[1] == completeVerb {
				at = 2
			}
			os.Args = slices.Insert(os.Args, at, "--root", os.Getenv(varRoot))
			main()
		},
		"inlab": func() {
			enterNetns()
			path, err := exec.LookPath(os.Args[1])
			if err == nil {
				err = unix.Exec(path, os.Args[1:], os.Environ())
			}
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		},
		"hook": func() {
			enterNetns()
			if err := runHook(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
}

func TestScripts(t *testing.T) {
	runScripts(t, "testdata/script", testenv.Config{})
}

type scriptCmd = func(*testscript.TestScript, bool, []string)

func runScripts(t *testing.T, dir string, lab testenv.Config, more ...map[string]scriptCmd) {
	cmds := map[string]scriptCmd{
		"gateway": cmdGateway, "rival": cmdRival, "await": cmdAwait, "container": cmdContainer, "attach": cmdAttach,
		"crash": cmdCrash, "end": cmdEnd, "fails": cmdFails, "foreign": cmdForeign, "mask": cmdMask,
	}
	for _, m := range more {
		maps.Copy(cmds, m)
	}
	testscript.Run(t, testscript.Params{
		Dir:                dir,
		Setup:              func(env *testscript.Env) error { return setup(env, lab) },
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds:               cmds,
	})
}

// world is what a script's commands share.
type world struct {
	tb         testing.TB
	lab        *testenv.Lab
	containers map[string]*testenv.Container
	others     map[string]*testenv.Namespace // by what they are called
}

func setup(env *testscript.Env, c testenv.Config) error {
	tb, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("testscript's T hides the test")
	}
	w := &world{tb: tb, lab: testenv.NewLab(tb, c), containers: map[string]*testenv.Container{}, others: map[string]*testenv.Namespace{}}
	if _, err := w.lab.Host.Exec("ip", "link", "set", w.lab.Trunk, "address", trunkMAC); err != nil {
		return err
	}
	root := filepath.Join(env.WorkDir, "root")
	tb.Cleanup(func() {
		if err := os.RemoveAll(wiring.PathsUnder(root).BPF); err != nil {
			tb.Errorf("remove pins: %v", err)
		}
	})
	env.Setenv(varRoot, root)
	env.Setenv("PINS", wiring.PathsUnder(root).BPF)
	env.Setenv(varNetns, w.lab.Host.Path())
	env.Values["world"] = w
	return nil
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

// enterNetns moves the whole process into the lab: threads that the runtime has
// already made would stay where they are, so it begins anew.
func enterNetns() {
	runtime.LockOSThread() // until exec: the thread that moves is the one that goes on
	path := os.Getenv(varNetns)
	if path == "" {
		return
	}
	fatal := func(err error) {
		fmt.Fprintf(os.Stderr, "enter the lab %s: %v\n", path, err)
		os.Exit(3)
	}
	if err := os.Unsetenv(varNetns); err != nil {
		fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		fatal(err)
	}
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		fatal(err)
	}
	f.Close()
	fatal(unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// runHook attaches as lanyard-hook does, which cannot be imported.
func runHook() error {
	state, err := hook.ReadState(os.Stdin)
	if err != nil {
		return err
	}
	l, err := wiring.Open(wiring.PathsUnder(os.Getenv(varRoot)))
	if err != nil {
		return err
	}
	defer l.Close()
	if len(os.Args) > 1 && os.Args[1] == "poststop" {
		return l.Detach(context.Background(), state.ID)
	}
	r, ours, err := hook.Parse(state)
	if err != nil || !ours {
		return err
	}
	if os.Getenv("LANYARD_TRACE") == "1" {
		r.Trace = hook.NewTrace()
	}
	_, err = l.Attach(context.Background(), r)
	return err
}

func cmdGateway(ts *testscript.TestScript, neg bool, args []string) {
	vlan := 0
	if len(args) > 0 && strings.HasPrefix(args[0], "vlan=") {
		var err error
		vlan, err = strconv.Atoi(strings.TrimPrefix(args[0], "vlan="))
		ts.Check(err)
		args = args[1:]
	}
	worldOf(ts).lab.AddGateway(uint16(vlan), args...)
}

func cmdRival(ts *testscript.TestScript, neg bool, args []string) {
	_, err := worldOf(ts).lab.AddRival(0, args[0]).Exec("ping", "-n", "-c1", "-W5", args[1])
	ts.Check(err)
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	testenv.Eventually(worldOf(ts).tb, args[1]+" in "+args[0], func() error {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !want.Match(text) {
			err = fmt.Errorf("it says %q", text)
		}
		return err
	})
}

func cmdContainer(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	w.containers[args[0]] = testenv.NewContainer(w.tb)
	ts.Setenv("PID", strconv.Itoa(w.containers[args[0]].Pid))
}

// hookCommand is the hook with a container's state on stdin.
func hookCommand(ts *testscript.TestScript, args []string) *exec.Cmd {
	c := worldOf(ts).containers[args[0]]
	if c == nil {
		ts.Fatalf("there is no container %q", args[0])
	}
	state := specs.State{Version: specs.Version, ID: args[0], Status: specs.StateCreating, Pid: c.Pid, Annotations: map[string]string{}}
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		state.Annotations["io.lanyard."+k] = v
	}
	text, err := json.Marshal(state)
	ts.Check(err)
	path, err := exec.LookPath("hook")
	ts.Check(err)
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), varNetns+"="+ts.Getenv(varNetns), varRoot+"="+ts.Getenv(varRoot), "LANYARD_TRACE="+ts.Getenv("LANYARD_TRACE"))
	cmd.Stdin = strings.NewReader(string(text))
	return cmd
}

func cmdAttach(ts *testscript.TestScript, neg bool, args []string) {
	out, err := hookCommand(ts, args).CombinedOutput()
	if err != nil != neg {
		ts.Fatalf("attach %s: %v: %s", args[0], err, out)
	}
	ts.Logf("%s", out)
}

// cmdCrash kills the hook once its intent is on record: the gateway is silent,
// so it is waiting then.
func cmdCrash(ts *testscript.TestScript, neg bool, args []string) {
	cmd := hookCommand(ts, args)
	ts.Check(cmd.Start())
	testenv.Eventually(worldOf(ts).tb, "the intent of "+args[0], func() error {
		if err := ts.Exec("lanyard", "ps", "--format", "json"); err != nil {
			return err
		}
		if out := ts.ReadFile("stdout"); !strings.Contains(out, `"attaching"`) {
			return fmt.Errorf("records are %s", out)
		}
		return nil
	})
	ts.Check(cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		ts.Fatalf("the hook of %s was done before it was killed", args[0])
	}
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	w.containers[args[0]].End(w.tb)
}

func cmdForeign(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	answer, err := strconv.Atoi(args[1])
	ts.Check(err)
	w.tb.Cleanup(w.lab.Foreign(w.lab.Host, w.lab.Trunk, args[0], int32(answer)))
}

func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%q: %v, want exit status %s", args[1:], err, args[0])
	}
	said := ts.ReadFile("stderr")
	if said == "" {
		ts.Fatalf("%q failed without a word", args[1:])
	}
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "lanyard: ") {
			ts.Fatalf("%q says %q", args[1:], line)
		}
	}
}

// masks are what differs from run to run.
var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "ATTACHMENT"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "GENERATION"},
	{regexp.MustCompile(`"[0-9a-f]{8}-[0-9a-f-]{27}"`), `"BOOT"`},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`"(at|other_at|cookie|inode|pid|start|netns|trunk|ifindex|parent_ifindex|\w*rtt_ns)": [1-9]\d*`), `"$1": N`},
	{regexp.MustCompile(`"((?:out|in)_(?:frames|bytes)|count|frames)": \d+`), `"$1": N`},
	{regexp.MustCompile(`\b[0-9.]+(µs|ms|s)\b`), "TIME"},
	{regexp.MustCompile(`  [1-9]\d*/(\d+)`), "  N/$1"}, // frames
	{regexp.MustCompile(`(\S)  +`), "$1  "},            // columns are as wide as what is in them
}

func cmdMask(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.by)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
