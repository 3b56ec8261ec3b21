//go:build vm

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// engine is a real runtime with Lanyard's hook in its configuration.
type engine struct {
	t   *testing.T
	w   *world
	dir string // of bundles
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	return newEngineOf(t, newWorld(t, testenv.Config{VLANs: []uint16{50, 60}}))
}

// newEngineOf returns an engine in an existing lab.
func newEngineOf(t *testing.T, w *world) *engine {
	t.Helper()
	// podman refuses a runroot of more than 50 characters, and t.TempDir contains the test's name.
	dir, err := os.MkdirTemp("", "engine")
	must(t, err)
	t.Cleanup(func() { testenv.RemoveAll(t, dir) })
	return &engine{t: t, w: w, dir: dir}
}

// defineVLAN50 defines "web" on VLAN 50, with a gateway. It returns the host's links.
func (w *world) defineVLAN50() []string {
	w.tb.Helper()
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	return w.Links(w.Host)
}

// rootfs is a root file system with busybox in it.
func (e *engine) rootfs() string {
	e.t.Helper()
	dir := filepath.Join(e.dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		must(e.t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	box, err := os.ReadFile("/bin/busybox")
	must(e.t, err)
	must(e.t, os.WriteFile(filepath.Join(dir, "bin", "busybox"), box, 0o755))
	for _, tool := range []string{"sh", "ip", "ping", "sleep", "cat"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", tool)); err != nil && !os.IsExist(err) {
			e.t.Fatal(err)
		}
	}
	return dir
}

// hooks returns the hooks of the README, for this binary.
func (e *engine) hooks(stages ...string) *specs.Hooks {
	e.t.Helper()
	self, err := os.Executable()
	must(e.t, err)
	h := func(stage string) []specs.Hook {
		return []specs.Hook{{Path: self, Args: []string{"lanyard-hook", "--root", e.w.root, stage}, Env: hooklab.HookEnv()}}
	}
	all := &specs.Hooks{Poststop: h("poststop")}
	for _, s := range stages {
		switch s {
		case "createRuntime":
			all.CreateRuntime = h(s)
		case "prestart":
			//nolint:staticcheck // deprecated, and still what many configurations list
			all.Prestart = h(s)
		case "createContainer":
			all.CreateContainer = h(s)
		}
	}
	return all
}

// bundle writes a config.json for a container with one annotation.
func (e *engine) bundle(id string, hooks *specs.Hooks, annotations ...string) string {
	e.t.Helper()
	dir := filepath.Join(e.dir, id)
	must(e.t, os.MkdirAll(dir, 0o755))
	cmd := exec.Command("runc", "spec", "--bundle", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("runc spec: %v: %s", err, out)
	}
	edit(e.t, dir, func(spec *specs.Spec) {
		spec.Process.Args, spec.Process.Terminal = []string{"sleep", "300"}, false
		for _, set := range []*[]string{&spec.Process.Capabilities.Bounding, &spec.Process.Capabilities.Effective,
			&spec.Process.Capabilities.Permitted} {
			*set = append(*set, "CAP_NET_RAW") // to ping
		}
		spec.Root.Path = e.rootfs()
		spec.Hooks = hooks
		spec.Annotations = map[string]string{}
		for _, a := range annotations {
			k, v, _ := strings.Cut(a, "=")
			spec.Annotations["io.lanyard."+k] = v
		}
	})
	return dir
}

// edit changes a bundle's config.json.
func edit(t *testing.T, bundle string, change func(*specs.Spec)) {
	t.Helper()
	path := filepath.Join(bundle, "config.json")
	text, err := os.ReadFile(path)
	must(t, err)
	var spec specs.Spec
	must(t, json.Unmarshal(text, &spec))
	change(&spec)
	text, err = json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(path, text, 0o600))
}

// run runs a program in the host's namespace; output goes to a file, which a
// container that lives on may keep open.
func (e *engine) run(args ...string) (string, error) {
	e.t.Helper()
	f, err := os.CreateTemp(e.dir, "output")
	must(e.t, err)
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	err = e.w.Host.Run(cmd)
	out, rerr := os.ReadFile(f.Name())
	must(e.t, rerr)
	return string(out), err
}

func (e *engine) must(args ...string) string {
	e.t.Helper()
	out, err := e.run(args...)
	if err != nil {
		e.t.Fatalf("%q: %v: %s", args, err, out)
	}
	return out
}

// TestRuntimes runs a real container with each runtime: it is on VLAN 50, and announced,
// before its first process runs, and it leaves nothing.
//
// Row: announcement of a new address
func TestRuntimes(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		for name, stages := range map[string][]string{
			"createRuntime": {"createRuntime"}, "prestart": {"prestart"}, "both": {"prestart", "createRuntime"},
		} {
			t.Run(runtime+", "+name, func(t *testing.T) {
				e := newEngine(t)
				e.w.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
				e.w.Define("web", "eth9.50", nil, "192.168.50.0/24", "fd50::/64")
				before := e.w.Links(e.w.Host)
				bundle := e.bundle("web1", e.hooks(stages...), "network=web", "verify=strict")
				t.Cleanup(func() { e.run(runtime, "--root", e.dir+"/state", "delete", "--force", "web1") })
				heard := hooklab.Listen(t, e.w.Switch, "trunk", "192.168.50.2", "fd50::2")
				e.must(runtime, "--root", e.dir+"/state", "run", "--detach", "--bundle", bundle, "web1")
				heard.WantThree(t)
				if a := e.w.Record(); a.Verdict.Code != verify.OK || len(a.Containers) != 1 || a.Containers[0].ID != "web1" {
					t.Errorf("record is %+v", a)
				}
				if out := e.must(runtime, "--root", e.dir+"/state", "exec", "web1", "ip", "addr", "show",
					"eth0"); !strings.Contains(out, "192.168.50.2/24") || !strings.Contains(out, "fd50::2/64") {
					t.Errorf("addresses inside: %s", out)
				}
				e.must(runtime, "--root", e.dir+"/state", "exec", "web1", "ping", "-c1", "-W5", "192.168.50.1")
				e.must(runtime, "--root", e.dir+"/state", "delete", "--force", "web1")
				e.w.WantNothing("web", before)
			})
		}
	}
}

// TestRuntimeRefusal checks that the user sees the reason: runc shows the hook's line.
func TestRuntimeRefusal(t *testing.T) {
	e := newEngine(t)
	gw := e.w.AddGateway(50, "192.168.50.1/24")
	e.w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	before := e.w.Links(e.w.Host)
	gw.MoveToVLAN(60)
	for _, runtime := range []string{"runc", "crun"} {
		bundle := e.bundle(runtime+"1", e.hooks("createRuntime"), "network=web", "verify=strict")
		out, err := e.run(runtime, "--root", e.dir+"/state-"+runtime, "run", "--detach", "--bundle", bundle, runtime+"1")
		if err == nil {
			t.Errorf("%s started the container: %s", runtime, out)
		}
		// crun sends a hook's stderr to /dev/null.
		if runtime == "runc" && !strings.Contains(out, "vlan-silent") {
			t.Errorf("runc says %q", out)
		}
		e.w.WantNothing("web", before)
	}
}

// TestNetDevices checks a container with a device in linux.netDevices that is to be eth0. A runtime
// that knows the key moves the device before it runs hooks, so the hook takes the next name. An
// older runtime leaves the device on the host.
func TestNetDevices(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			e := newEngine(t)
			before := e.w.defineVLAN50()
			e.must("ip", "link", "add", "spare0", "type", "dummy")
			bundle := e.bundle("web1", e.hooks("createRuntime"), "network=web", "verify=strict")
			edit(t, bundle, func(spec *specs.Spec) {
				spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"spare0": {Name: "eth0"}}
			})
			state := e.dir + "/state"
			t.Cleanup(func() { e.run(runtime, "--root", state, "delete", "--force", "web1") })
			e.must(runtime, "--root", state, "run", "--detach", "--bundle", bundle, "web1")
			want := "eth1"
			if slices.Contains(e.w.Links(e.w.Host), "spare0") {
				want = "eth0"
			}
			t.Logf("the interface should be %s, by %s", want, e.must(runtime, "--version"))
			if a := e.w.Record(); a.Interface != want || a.Verdict.Code != verify.OK {
				t.Errorf("record is %+v, want interface %s", a, want)
			}
			e.must(runtime, "--root", state, "exec", "web1", "ping", "-c1", "-W5", "192.168.50.1")
			e.must(runtime, "--root", state, "delete", "--force", "web1")
			e.run("ip", "link", "del", "spare0") // gone with the container if it was moved
			e.w.WantNothing("web", before)
		})
	}
}

// hooksDir writes the hooks.d files, with the pattern that is installed, and returns their directory.
func (e *engine) hooksDir() string {
	e.t.Helper()
	hooks := filepath.Join(e.dir, "hooks.d")
	must(e.t, os.MkdirAll(hooks, 0o755))
	h := e.hooks("createRuntime", "createContainer")
	for stage, hook := range map[string]specs.Hook{
		"createRuntime": h.CreateRuntime[0], "createContainer": h.CreateContainer[0], "poststop": h.Poststop[0],
	} {
		text, err := json.Marshal(map[string]any{
			"version": "1.0.0", "hook": hook, "stages": []string{stage},
			"when": map[string]any{"annotations": map[string]string{shippedWhen(e.t): ".*"}},
		})
		must(e.t, err)
		must(e.t, os.WriteFile(filepath.Join(hooks, "lanyard-"+stage+".json"), text, 0o600))
	}
	return hooks
}

// plainPodman returns a function that returns the command line of podman as root, without hooks. The
// storage is vfs: the overlay driver mounts its directory, which may still be mounted at the test's end.
func (e *engine) plainPodman(runtime string) func(args ...string) []string {
	return func(args ...string) []string {
		return append([]string{"podman", "--storage-driver", "vfs", "--root", e.dir + "/storage",
			"--runroot", e.dir + "/runroot", "--runtime", runtime}, args...)
	}
}

// podman does the same with the hooks in a directory of the command line.
func (e *engine) podman(runtime string) func(args ...string) []string {
	e.t.Helper()
	command, hooks := e.plainPodman(runtime), e.hooksDir()
	return func(args ...string) []string { return command(append([]string{"--hooks-dir", hooks}, args...)...) }
}

// TestPodman runs podman as root, with --hooks-dir.
func TestPodman(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			e := newEngine(t)
			before := e.w.defineVLAN50()
			podman := e.podman(runtime)
			t.Cleanup(func() { e.run(podman("rm", "--all", "--force", "--time", "0")...) })
			id := strings.TrimSpace(e.must(podman("run", "--detach", "--network", "none", "--cap-add", "NET_RAW", "--annotation",
				"io.lanyard.network=web", "--rootfs", e.rootfs(), "sleep", "300")...))
			if a := e.w.Record(); a.Verdict.Code != verify.OK || fmt.Sprint(a.Containers[0].ID) != lastLine(id) {
				t.Errorf("record is %+v, id %s", a, id)
			}
			e.must(podman("exec", lastLine(id), "ping", "-c1", "-W5", "192.168.50.1")...)
			// A restart of the same container has a new namespace and another attachment.
			e.must(podman("restart", "--time", "0", lastLine(id))...)
			e.must(podman("exec", lastLine(id), "ping", "-c1", "-W5", "192.168.50.1")...)
			e.must(podman("rm", "--force", "--time", "0", lastLine(id))...)
			e.w.WantNothing("web", before)

			// A misspelt prefix does not start a container off the network. crun does not
			// show the error; the failures kept for root do.
			for key, word := range map[string]string{"IO.Lanyard.network": "lower case",
				" io.lanyard.network": "with nothing before it"} {
				if out, err := e.run(podman("run", "--rm", "--network", "none", "--annotation", key+"=web", "--rootfs", e.rootfs(),
					"true")...); err == nil {
					t.Errorf("%q started: %s", key, out)
				}
				kept, err := service.Kept(wiring.PathsUnder(e.w.root).Failures()).All()
				if err != nil || len(kept) == 0 || !strings.Contains(kept[len(kept)-1].Error, word) {
					t.Errorf("%q: kept is %+v, %v", key, kept, err)
				}
			}
			// The form that docs/rootless.md recommends for every podman.
			id = e.must(podman("run", "--detach", "--network", "none", "--annotation", "io.lanyard.networks=web@lan0 web@lan1",
				"--rootfs", e.rootfs(), "sleep", "300")...)
			if n := len(e.w.Records()); n != 2 {
				t.Errorf("the short form with a space gave %d interfaces", n)
			}
			e.must(podman("rm", "--force", "--time", "0", lastLine(id))...)
		})
	}
}

// TestPodmanPod checks a podman pod of root: no network has to list it, its containers share
// one interface, and it has the default route.
func TestPodmanPod(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	for _, runtime := range testenv.OneRuntime(map[string]string{"6.12": "crun"}) {
		t.Run(runtime, func(t *testing.T) {
			e := newEngine(t)
			before := e.w.defineVLAN50()
			podman := e.podman(runtime)
			t.Cleanup(func() { e.run(podman("pod", "rm", "--all", "--force", "--time", "0")...) })
			image := filepath.Join(e.dir, "image.tar")
			e.must("tar", "-C", e.rootfs(), "-cf", image, ".")
			e.must(podman("import", image, "localhost/plain")...)
			e.must(podman("pod", "create", "--name", "p", "--share-parent=false", "--network", "none", "--infra-image",
				"localhost/plain", "--infra-command", "sleep 300")...)
			for _, name := range []string{"one", "two"} {
				e.must(podman("run", "--detach", "--pod", "p", "--name", name, "--cap-add", "NET_RAW", "--annotation",
					"io.lanyard.network=web", "localhost/plain", "sleep", "300")...)
			}
			if a := e.w.Record(); len(a.Containers) != 2 || a.Pod != (hook.Pod{}) || a.Verdict.Code != verify.OK ||
				len(a.Defaults) != 1 {
				t.Errorf("record is %+v", a)
			}
			e.must(podman("exec", "two", "ping", "-c1", "-W5", "192.168.50.1")...)
			e.must(podman("pod", "restart", "p")...)
			e.must(podman("exec", "one", "ping", "-c1", "-W5", "192.168.50.1")...)
			e.must(podman("pod", "rm", "--force", "--time", "0", "p")...)
			e.w.WantNothing("web", before)
		})
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
