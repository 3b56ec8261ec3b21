//go:build vm

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// userNames are users of the virtual machine, created when they are first needed.
var userNames = map[int]string{alice: "alice", bob: "bob", mallory: "mallory"}

// rootless is a user with podman and a directory with Lanyard's hook, in a lab with a
// service.
type rootless struct {
	*brokered
	t       *testing.T
	runtime string
	hook    string // the program
}

func newRootless(t *testing.T, runtime string, edit func(*network.Definition)) *rootless {
	t.Helper()
	b := newBrokered(t, testenv.Config{VLANs: []uint16{50, 60}})
	b.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
	b.Define("web", "eth9.50", func(d *network.Definition) {
		d.AllowUsers = []string{"alice", "bob"}
		d.DNS, d.DNSSearch = []netip.Addr{netip.MustParseAddr("192.168.50.1")}, []string{"lab.example"}
		if edit != nil {
			edit(d)
		}
	}, "192.168.50.0/24", "fd50::/64")
	r := &rootless{brokered: b, t: t, runtime: runtime, hook: filepath.Join(b.root, "lanyard-hook")}
	// Readable for users, as an administrator installs it.
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(r.hook, self, 0o755))
	for uid := range userNames {
		r.account(uid)
		// podman leaves a process running.
		t.Cleanup(func() { r.killUser(uid) })
	}
	return r
}

// killUser kills all processes of a user of the virtual machine.
func (r *rootless) killUser(uid int) {
	r.t.Helper()
	mustBeInVM(r.t)
	by(uid, exec.Command("sh", "-c", "kill -9 -1")).Run() // it kills itself, too
}

// mustBeInVM stops a test that would harm the machine if its binary were run by hand.
func mustBeInVM(t *testing.T) {
	t.Helper()
	if name, err := os.Hostname(); err != nil || name != "lanyard-vm" {
		t.Fatalf("this is %q, %v: not the virtual machine", name, err)
	}
}

// account creates a user with a root file system for containers and a directory in /run.
func (r *rootless) account(uid int) {
	r.t.Helper()
	mustAccount(r.t, uid, r.home(uid))
	must(r.t, os.MkdirAll(filepath.Dir(r.runDir(uid)), 0o755))
	mustOwnDir(r.t, uid, r.runDir(uid))
	mustRootfs(r.t, r.home(uid), uid)
}

// mustAccount creates a user with subordinate ids and a home directory.
func mustAccount(t *testing.T, uid int, home string) {
	t.Helper()
	name := userNames[uid]
	for file, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh", name, uid, uid, home),
		"/etc/shadow": fmt.Sprintf("%s:*:20000:0:99999:7:::", name), // PAM asks whether it has expired
		"/etc/group":  fmt.Sprintf("%s:x:%d:", name, uid),
		"/etc/subuid": fmt.Sprintf("%s:%d:65536", name, uid*100_000),
		"/etc/subgid": fmt.Sprintf("%s:%d:65536", name, uid*100_000),
	} {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		// First: the machine may have another user with this uid.
		if kept := line + "\n" + without(string(text), name+":"); kept != string(text) {
			must(t, os.WriteFile(file, []byte(kept), 0o644))
		}
	}
	must(t, os.MkdirAll(filepath.Dir(home), 0o755))
	mustOwnDir(t, uid, home)
}

func mustOwnDir(t *testing.T, uid int, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.Chown(dir, uid, uid))
}

// mustRootfs creates a root file system with busybox, owned by a user.
func mustRootfs(t *testing.T, dir string, uid int) string {
	t.Helper()
	rootfs := (&engine{t: t, dir: dir}).rootfs()
	must(t, os.MkdirAll(filepath.Join(rootfs, "run"), 0o755))
	must(t, filepath.WalkDir(rootfs, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	}))
	return rootfs
}

// without removes the lines that begin with a word.
func without(text, prefix string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func (r *rootless) home(uid int) string   { return filepath.Join(r.root, "home", fmt.Sprint(uid)) }
func (r *rootless) runDir(uid int) string { return fmt.Sprintf("/run/user/%d", uid) }

// hooksDir writes the hook files that an administrator or user would have, for this
// binary.
func (r *rootless) hooksDir() string {
	r.t.Helper()
	dir := filepath.Join(r.root, "hooks.d")
	must(r.t, os.MkdirAll(dir, 0o755))
	for _, stage := range []string{"createRuntime", "createContainer", "poststop"} {
		text, err := json.Marshal(map[string]any{
			"version": "1.0.0", "stages": []string{stage},
			"hook": specs.Hook{Path: r.hook, Args: []string{"lanyard-hook", "--root", r.root, stage}, Env: hooklab.HookEnv()},
			"when": map[string]any{"annotations": map[string]string{shippedWhen(r.t): ".*"}},
		})
		must(r.t, err)
		must(r.t, os.WriteFile(filepath.Join(dir, "lanyard-"+stage+".json"), text, 0o644))
	}
	return dir
}

// podman runs podman as a user.
func (r *rootless) podman(uid int, args ...string) (string, error) {
	r.t.Helper()
	all := append([]string{
		"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs",
		"--runtime", r.runtime, "--hooks-dir", r.hooksDir(),
	}, args...)
	f, err := os.CreateTemp(r.root, "output") // a container that lives on may keep it open
	must(r.t, err)
	defer f.Close()
	cmd := by(uid, exec.Command("podman", all...))
	cmd.Dir = r.home(uid)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.home(uid), "XDG_RUNTIME_DIR=" + r.runDir(uid)}
	cmd.Stdout, cmd.Stderr = f, f
	err = r.Host.Run(cmd)
	out, rerr := os.ReadFile(f.Name())
	must(r.t, rerr)
	return string(out), err
}

func (r *rootless) mustPodman(uid int, args ...string) string {
	r.t.Helper()
	out, err := r.podman(uid, args...)
	if err != nil {
		r.t.Fatalf("podman %q as uid %d: %v: %s", args, uid, err, out)
	}
	return out
}

// create starts a user's container on the network.
func (r *rootless) create(uid int, name string, annotations ...string) (string, error) {
	r.t.Helper()
	args := []string{"run", "--detach", "--name", name, "--network", "none", "--cap-add", "NET_RAW"}
	for _, a := range append([]string{"network=web"}, annotations...) {
		args = append(args, "--annotation", "io.lanyard."+a)
	}
	return r.podman(uid, append(args, "--rootfs", filepath.Join(r.home(uid), "rootfs"), "sleep", "300")...)
}

func (r *rootless) mustCreate(uid int, name string, annotations ...string) {
	r.t.Helper()
	if out, err := r.create(uid, name, annotations...); err != nil {
		r.t.Fatalf("start %q as uid %d: %v: %s\n%s", name, uid, err, out, r.logged())
	}
}

// TestRootlessPodman checks that a user's podman, with no configuration but the directory
// of hooks, attaches to VLAN 50 before the first process runs, and leaves nothing.
func TestRootlessPodman(t *testing.T) {
	for _, runtime := range testenv.OneRuntime(map[string]string{"6.1": "crun", "6.12": "runc"}) {
		t.Run(runtime, func(t *testing.T) {
			r := newRootless(t, runtime, nil)
			before := r.Links(r.Host)
			r.mustCreate(alice, "a1", "ip=192.168.50.9")
			r.mustCreate(bob, "b1")
			for _, a := range r.Records() {
				if a.Verdict.Code != verify.OK || a.Guard == nil || a.Owner == 0 {
					t.Errorf("record is %+v", a)
				}
			}
			r.mustPodman(alice, "exec", "a1", "ping", "-c1", "-W5", "192.168.50.1")
			r.mustPodman(alice, "exec", "a1", "ping", "-c1", "-W5", "fd50::1")
			if out := r.mustPodman(alice, "exec", "a1", "cat", "/etc/resolv.conf"); !strings.Contains(out,
				"search lab.example\nnameserver 192.168.50.1\n") {
				t.Errorf("resolv.conf is %q", out)
			}
			r.mustPodman(bob, "exec", "b1", "ping", "-c1", "-W5", "192.168.50.9")
			r.mustPodman(alice, "restart", "--time", "0", "a1")
			r.mustPodman(alice, "exec", "a1", "ping", "-c1", "-W5", "192.168.50.1")
			// A user who is not allowed sees the refusal with runc, and not with crun.
			out, err := r.create(mallory, "m1")
			if err == nil {
				t.Errorf("mallory has a container: %s", out)
			}
			if runtime == "runc" && !strings.Contains(out, "refused: the network must be one that allows you") {
				t.Errorf("runc says %q", out)
			}
			if lines := r.why(mallory); len(lines) == 0 || !strings.Contains(lines[0],
				": refused: the network must be one that allows you") {
				t.Errorf("mallory is told %q", lines)
			}
			for uid, name := range map[int]string{alice: "a1", bob: "b1"} {
				r.mustPodman(uid, "rm", "--force", "--time", "0", name)
			}
			r.WantNothing("web", before)
			r.wantNoGuards(t)
		})
	}
}

// TestRootlessKilled checks that the sweep releases what a user kills or removes without
// poststop.
func TestRootlessKilled(t *testing.T) {
	r := newRootless(t, "crun", nil)
	before := r.Links(r.Host)
	r.mustCreate(alice, "a1")
	r.runtime = "runc"
	r.mustCreate(alice, "a2")
	// Everything of the user, as a logout does, or an interrupted podman system reset.
	r.killUser(alice)
	r.sweepService()
	r.WantNothing("web", before)
	r.wantNoGuards(t)
}

// sweepService runs the sweep of a new service.
func (r *rootless) sweepService() {
	r.t.Helper()
	r.kill()
	r.start()
	testenv.Eventually(r.t, "the sweeper", func() error {
		if n := len(r.Records()); n > 0 {
			return fmt.Errorf("there are %d records", n)
		}
		return nil
	})
}

// TestRootlessPod checks that the containers of a pod share one interface.
func TestRootlessPod(t *testing.T) {
	r := newRootless(t, "crun", nil)
	r.mustCreate(alice, "first")
	r.runtime = "runc"
	r.mustPodman(alice, "run", "--detach", "--name", "second", "--cap-add", "NET_RAW", "--network", "container:first",
		"--annotation", "io.lanyard.network=web",
		"--rootfs", filepath.Join(r.home(alice), "rootfs"), "sleep", "300")
	if a := r.Record(); len(a.Containers) != 2 {
		t.Errorf("containers are %+v", a.Containers)
	}
	r.mustPodman(alice, "exec", "second", "ping", "-c1", "-W5", "192.168.50.1")
	r.mustPodman(alice, "rm", "--force", "--time", "0", "second")
	r.mustPodman(alice, "exec", "first", "ping", "-c1", "-W5", "192.168.50.1")
	r.mustPodman(alice, "rm", "--force", "--time", "0", "first")
	if recs := r.Records(); len(recs) > 0 {
		t.Errorf("records are left: %+v", recs)
	}
}
