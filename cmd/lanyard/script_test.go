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

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/oci"
	"github.com/lanyard-net/lanyard/internal/leases"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// Scripts run lanyard in the host's namespace of their own lab. The trunk is eth9, files
// are below $ROOT and BPF pins below $PINS. Commands of scripts:
//
//	gateway PREFIX…            adds a station with these addresses to the switch
//	claimant PREFIX ADDR       adds a station that uses an address and pings ADDR from it
//	lldp FILE                  runs lldpd on the switch, with these lines for lldpcli
//	lldp off                   ends it
//	await FILE PATTERN         waits until a background program's output matches
//	container ID               creates a network namespace with a process, whose pid is $PID
//	attach ID KEY=VALUE…       runs the hook with these annotations, as a runtime does
//	crash ID KEY=VALUE…        the same, and kills it while it waits for a silent gateway
//	end ID                     ends the container's process, without poststop
//	fails STATUS PROGRAM ARG…  expects this exit status, and "lanyard: " before each line
//	etcd start|kill|restart    runs the server that leases.json names
//	etcd claim HOST CONTAINER POOL ADDRESS   claims an address for a container of another host
//	inlab PROGRAM ARG…         (with exec) runs any program in the host's namespace
//	foreign DIRECTION ANSWER   attaches a program that runs before Lanyard's on the trunk and
//	                           returns ANSWER
//	unplug                     removes the trunk's network card
//	replug                     adds it again
//	trunk up|down|mtu BYTES    switches the carrier of the trunk's network card, or sets the MTU of
//	                           the switch's port
//	radvd STATEMENTS           runs radvd on the last gateway, or changes what it advertises
//	station PROGRAM ARG…       runs any program in the namespace of the last gateway
//	mask FILE                  replaces text that differs between runs
const (
	varNetns = "NETNS"
	varRoot  = "ROOT"
)

// trunkMAC is the MAC of eth9 in every lab, since veths have random ones.
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
		"gateway": cmdGateway, "claimant": cmdClaimant, "lldp": cmdLLDP, "etcd": cmdEtcd,
		"await": cmdAwait, "container": cmdContainer, "attach": cmdAttach,
		"crash": cmdCrash, "end": cmdEnd, "fails": cmdFails, "foreign": cmdForeign, "mask": cmdMask,
		"unplug": cmdUnplug, "replug": cmdReplug, "trunk": cmdTrunk, "station": cmdStation, "radvd": cmdRadvd,
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

// scriptState is what the commands of a script share.
type scriptState struct {
	tb         testing.TB
	lab        *testenv.Lab
	gateway    *testenv.Station // the last one
	silence    func()           // ends lldpd
	containers map[string]*testenv.Container
	namespaces map[string]*testenv.Namespace // by name
	etcd       *testenv.Etcd
	radvd      *testenv.Radvd
}

func setup(env *testscript.Env, c testenv.Config) error {
	tb, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("the T of testscript is not a testing.TB")
	}
	w := &scriptState{tb: tb, lab: testenv.NewLab(tb, c), containers: map[string]*testenv.Container{},
		namespaces: map[string]*testenv.Namespace{}}
	if _, err := w.lab.Host.Exec("ip", "link", "set", w.lab.Trunk, "address", trunkMAC); err != nil {
		return err
	}
	root := filepath.Join(env.WorkDir, "root")
	tb.Cleanup(func() {
		if err := os.RemoveAll(wiring.PathsUnder(root).BPF); err != nil {
			tb.Errorf("remove pins: %v", err)
		}
		_ = unix.Unmount(wiring.PathsUnder(root).Guards, unix.MNT_DETACH) // where "lanyard serve" ran
	})
	env.Setenv(varRoot, root)
	env.Setenv("PINS", wiring.PathsUnder(root).BPF)
	env.Setenv(varNetns, w.lab.Host.Path())
	env.Values["state"] = w
	return nil
}

func stateOf(ts *testscript.TestScript) *scriptState { return ts.Value("state").(*scriptState) }

// enterNetns moves the whole process into the lab's namespace. Existing threads of the
// runtime would stay outside, so it executes the program again after setns(2).
func enterNetns() {
	runtime.LockOSThread() // until exec, which keeps this thread
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

// runHook does the same as lanyard-hook, a main package that cannot be imported.
func runHook() error {
	state, err := oci.ReadState(os.Stdin)
	if err != nil {
		return err
	}
	leases.Register()
	l, err := wiring.Open(wiring.PathsUnder(os.Getenv(varRoot)))
	if err != nil {
		return err
	}
	defer l.Close()
	if len(os.Args) > 1 && os.Args[1] == "poststop" {
		return l.Detach(context.Background(), state.ID)
	}
	r, ours, err := oci.Parse(state)
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
	stateOf(ts).gateway = stateOf(ts).lab.AddGateway(uint16(vlan), args...)
}

// cmdEtcd starts a server and writes leases.json, or kills the server.
func cmdEtcd(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	switch args[0] {
	case "start":
		w.etcd = testenv.StartEtcd(w.tb)
		p := wiring.PathsUnder(ts.Getenv(varRoot))
		ts.Check(os.MkdirAll(filepath.Dir(p.Leases), 0o755))
		ts.Check(os.WriteFile(p.Leases, fmt.Appendf(nil, `{"endpoints": [%q], "ttl": "2s"}`, w.etcd.Endpoint), 0o600))
	case "kill":
		w.etcd.Kill()
	case "restart":
		w.etcd.Start()
	case "reserve":
		ts.Check(reserveElsewhere(w, args[1], args[2], args[3]))
	case "claim":
		ts.Check(claimElsewhere(w, args[1], args[2], args[3], args[4]))
	}
}

func cmdClaimant(ts *testscript.TestScript, neg bool, args []string) {
	_, err := stateOf(ts).lab.AddClaimant(0, args[0]).Exec("ping", "-n", "-c1", "-W5", args[1])
	ts.Check(err)
}

func cmdLLDP(ts *testscript.TestScript, neg bool, args []string) {
	if args[0] == "off" {
		stateOf(ts).silence()
		return
	}
	stateOf(ts).silence = stateOf(ts).lab.SpeakLLDP(strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")...)
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	testenv.Eventually(stateOf(ts).tb, args[1]+" in "+args[0], func() error {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !want.Match(text) {
			err = fmt.Errorf("the file contains %q", text)
		}
		return err
	})
}

func cmdContainer(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	w.containers[args[0]] = testenv.NewContainer(w.tb)
	ts.Setenv("PID", strconv.Itoa(w.containers[args[0]].Pid))
}

// hookCommand returns a command that runs the hook with a container's state on stdin.
func hookCommand(ts *testscript.TestScript, args []string) *exec.Cmd {
	c := stateOf(ts).containers[args[0]]
	if c == nil {
		ts.Fatalf("there is no container %q", args[0])
	}
	state := specs.State{Version: specs.Version, ID: args[0], Status: specs.StateCreating, Pid: c.Pid,
		Annotations: map[string]string{}}
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		state.Annotations["io.lanyard."+k] = v
	}
	text, err := json.Marshal(state)
	ts.Check(err)
	path, err := exec.LookPath("hook")
	ts.Check(err)
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), varNetns+"="+ts.Getenv(varNetns), varRoot+"="+ts.Getenv(varRoot),
		"LANYARD_TRACE="+ts.Getenv("LANYARD_TRACE"))
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

// cmdCrash kills the hook when its intent is on record. The gateway is silent, so the hook
// is waiting then.
func cmdCrash(ts *testscript.TestScript, neg bool, args []string) {
	cmd := hookCommand(ts, args)
	ts.Check(cmd.Start())
	testenv.Eventually(stateOf(ts).tb, "the intent of "+args[0], func() error {
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
		ts.Fatalf("the hook of %s ended before it was killed", args[0])
	}
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	w.containers[args[0]].End(w.tb)
}

func cmdForeign(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	answer, err := strconv.Atoi(args[1])
	ts.Check(err)
	w.tb.Cleanup(w.lab.Foreign(w.lab.Host, w.lab.Trunk, args[0], int32(answer)))
}

func cmdUnplug(ts *testscript.TestScript, neg bool, args []string) { stateOf(ts).lab.Unplug() }
func cmdReplug(ts *testscript.TestScript, neg bool, args []string) { stateOf(ts).lab.Replug() }

func cmdStation(ts *testscript.TestScript, neg bool, args []string) {
	_, err := stateOf(ts).gateway.Exec(args[0], args[1:]...)
	ts.Check(err)
}

func cmdRadvd(ts *testscript.TestScript, neg bool, args []string) {
	w := stateOf(ts)
	if w.radvd == nil {
		w.radvd = w.gateway.ServeRadvd(args[0])
		return
	}
	w.radvd.Change(args[0])
}

func cmdTrunk(ts *testscript.TestScript, neg bool, args []string) {
	if args[0] == "mtu" {
		mtu, err := strconv.Atoi(args[1])
		ts.Check(err)
		stateOf(ts).lab.SetTrunkMTU(mtu)
		return
	}
	up := args[0] == "up"
	stateOf(ts).lab.SetTrunk(up)
	if up {
		stateOf(ts).lab.WaitCarrier()
	}
}

func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%q: %v, want exit status %s", args[1:], err, args[0])
	}
	output := ts.ReadFile("stderr")
	if output == "" {
		ts.Fatalf("%q failed without a message", args[1:])
	}
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "lanyard: ") {
			ts.Fatalf("%q printed %q", args[1:], line)
		}
	}
}

// masks replace text that differs between runs.
var masks = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "ATTACHMENT"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "GENERATION"},
	{regexp.MustCompile(`"[0-9a-f]{8}-[0-9a-f-]{27}"`), `"BOOT"`},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`"(at|other_at|cookie|inode|pid|start|netns|trunk|ifindex|parent_ifindex|\w*rtt_ns)": [1-9]\d*`),
		`"$1": N`},
	{regexp.MustCompile(`"((?:out|in)_(?:frames|bytes)|count|frames)": \d+`), `"$1": N`},
	{regexp.MustCompile(`\b[0-9.]+(µs|ms|s)\b`), "TIME"},
	{regexp.MustCompile(`  [1-9]\d*/(\d+)`), "  N/$1"}, // frames
	{regexp.MustCompile(`(\S)  +`), "$1  "},            // the width of columns depends on their content
}

func cmdMask(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.by)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
