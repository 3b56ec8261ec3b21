//go:build vm

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lanyard-net/lanyard/testenv"
)

// runcCmds are commands of scripts with real containers:
//
//	run ID KEY=VALUE…        starts a runc container with these annotations. pod=POD joins that
//	                         pod's namespace and sets CRI-O's annotation, netns=POD joins it
//	                         without the annotation, and kube=NAME sets the Kubernetes namespace
//	inside ID PROGRAM ARG…   runs a program in the container
//	remove ID…               ends the container, and runs its poststop hook
var runcCmds = map[string]scriptCmd{"run": cmdRun, "inside": cmdInside, "remove": cmdRemove}

// TestScriptsDocker runs the commands of Docker's macvlan and ipvlan documentation, with
// only the name of the program replaced, and shows the rows of docs/parity.md, with real
// containers.
func TestScriptsDocker(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	runScripts(t, "testdata/script-docker", testenv.Config{
		Trunk: "eth0", VLANs: []uint16{10, 20, 30, 40, 50, 100, 114, 118, 139, 140, 218},
	}, runcCmds, switchCmds)
}

func runc(ts *testscript.TestScript, args ...string) []string {
	return append([]string{"runc", "--root", ts.MkAbs("runc")}, args...)
}

func cmdRun(ts *testscript.TestScript, neg bool, args []string) {
	log, err := os.Create(ts.MkAbs("run.log"))
	ts.Check(err)
	defer log.Close()
	line := runc(ts, "run", "--detach", "--bundle", bundle(ts, args[0], args[1:]), args[0])
	cmd := exec.Command(line[0], line[1:]...)
	// A file instead of a pipe, because the container keeps it open.
	cmd.Stdout, cmd.Stderr = log, log
	runErr := stateOf(ts).lab.Host.Run(cmd)
	output, err := os.ReadFile(log.Name())
	ts.Check(err)
	if runErr != nil != neg {
		ts.Fatalf("%q: %v: %s", line, runErr, output)
	}
	ts.Logf("%s", output)
	if runErr == nil {
		id := args[0]
		ts.Defer(func() { stateOf(ts).lab.Host.Exec("runc", runc(ts, "delete", "--force", id)[1:]...) })
	}
}

// bundle writes a bundle with busybox, Lanyard's hooks and annotations, and returns its
// directory.
func bundle(ts *testscript.TestScript, id string, annotations []string) string {
	dir := ts.MkAbs("bundle-" + id)
	ts.Check(os.RemoveAll(dir)) // a script may use an id again
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc"} {
		ts.Check(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	box, err := os.ReadFile("/bin/busybox")
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(root, "bin", "busybox"), box, 0o755))
	for _, tool := range []string{"sh", "ip", "ping", "sleep"} {
		ts.Check(os.Symlink("busybox", filepath.Join(root, "bin", tool)))
	}
	text, err := runcSpec()
	ts.Check(err)
	var spec specs.Spec
	ts.Check(json.Unmarshal(text, &spec))
	spec.Process.Args, spec.Process.Terminal = []string{"sleep", "300"}, false
	spec.Process.Capabilities.Bounding = append(spec.Process.Capabilities.Bounding, "CAP_NET_RAW")
	spec.Process.Capabilities.Effective = append(spec.Process.Capabilities.Effective, "CAP_NET_RAW")
	spec.Process.Capabilities.Permitted = append(spec.Process.Capabilities.Permitted, "CAP_NET_RAW")
	spec.Annotations = map[string]string{}
	for _, a := range annotations {
		switch k, v, _ := strings.Cut(a, "="); k {
		case "pod":
			spec.Annotations["io.kubernetes.cri-o.SandboxID"], spec.Annotations["io.kubernetes.pod.name"] = "sandbox-"+v, v
			join(ts, &spec, v)
		case "netns":
			join(ts, &spec, v)
		case "kube":
			spec.Annotations["io.kubernetes.pod.namespace"] = v
		default:
			spec.Annotations["io.lanyard."+k] = v
		}
	}
	hook, err := exec.LookPath("hook")
	ts.Check(err)
	env := append(os.Environ(), varRoot+"="+ts.Getenv(varRoot))
	spec.Hooks = &specs.Hooks{
		CreateRuntime: []specs.Hook{{Path: hook, Args: []string{"hook", "createRuntime"}, Env: env}},
		Poststop:      []specs.Hook{{Path: hook, Args: []string{"hook", "poststop"}, Env: env}},
	}
	text, err = json.Marshal(spec)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600))
	return dir
}

// join makes a container use a pod's network namespace.
func join(ts *testscript.TestScript, spec *specs.Spec, pod string) {
	n := stateOf(ts).namespaces["pod "+pod]
	if n == nil {
		ts.Fatalf("there is no pod %q", pod)
	}
	for i := range spec.Linux.Namespaces {
		if ns := &spec.Linux.Namespaces[i]; ns.Type == specs.NetworkNamespace {
			ns.Path = n.Path()
		}
	}
}

// runcSpec returns the output of "runc spec". It runs once, because an emulated machine
// starts a program of that size slowly.
var runcSpec = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "spec")
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("runc spec: %w: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	return text, errors.Join(err, os.RemoveAll(dir))
})

func cmdInside(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("inlab", runc(ts, append([]string{"exec", args[0]}, args[1:]...)...)...)
	if err != nil != neg {
		ts.Fatalf("%q in %s: %v: %s", args[1:], args[0], err, ts.ReadFile("stdout")+ts.ReadFile("stderr"))
	}
}

func cmdRemove(ts *testscript.TestScript, neg bool, args []string) {
	for _, id := range args {
		if err := ts.Exec("inlab", runc(ts, "delete", "--force", id)...); err != nil {
			ts.Fatalf("remove %s: %v: %s", id, err, fmt.Sprint(ts.ReadFile("stderr")))
		}
	}
}
