//go:build vm

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// pluginPath is where "make install" puts the plugin, and podman looks for a driver "lanyard".
const pluginPath = "/usr/local/libexec/netavark/lanyard"

// podman is root's podman in the host's namespace, with the plugin installed.
type podman struct {
	*world
	t   *testing.T
	dir string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	if name, err := os.Hostname(); err != nil || name != "lanyard-vm" {
		t.Fatalf("this is %q, %v: not the virtual machine", name, err)
	}
	p := &podman{newWorld(t, testenv.Config{VLANs: []uint16{50, 60}}), t, t.TempDir()}
	self, err := os.Executable()
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(pluginPath), 0o755))
	// podman passes no environment to the process that cleans up.
	text := fmt.Sprintf("#!/bin/sh\nLANYARD_ROOT=%s exec %s \"$@\"\n", p.Root, self)
	must(t, os.WriteFile(pluginPath, []byte(text), 0o755))
	t.Cleanup(func() { must(t, os.Remove(pluginPath)) })
	t.Cleanup(func() { p.run("rm", "--all", "--force", "--time", "0") })
	p.makeRootfs()
	return p
}

// run runs podman. Its output goes to a file, which a container that lives on may keep open.
func (p *podman) run(args ...string) (string, error) {
	p.t.Helper()
	f, err := os.CreateTemp(p.dir, "output")
	must(p.t, err)
	defer f.Close()
	cmd := exec.Command("podman", append([]string{"--storage-driver", "vfs", "--root", p.dir + "/storage",
		"--runroot", p.dir + "/runroot", "--network-config-dir", p.dir + "/networks"}, args...)...)
	cmd.Stdout, cmd.Stderr = f, f
	err = p.Host.Run(cmd)
	out, rerr := os.ReadFile(f.Name())
	must(p.t, rerr)
	return string(out), err
}

func (p *podman) must(args ...string) string {
	p.t.Helper()
	out, err := p.run(args...)
	if err != nil {
		p.t.Fatalf("podman %q: %v: %s", args, err, out)
	}
	return out
}

// start runs a container in the background.
func (p *podman) start(name string, options ...string) (string, error) {
	p.t.Helper()
	args := append([]string{"run", "--detach", "--name", name, "--cap-add", "NET_RAW"}, options...)
	return p.run(append(args, "--rootfs", p.dir+"/rootfs", "sleep", "300")...)
}

// makeRootfs makes a root file system with busybox in it.
func (p *podman) makeRootfs() {
	p.t.Helper()
	dir := filepath.Join(p.dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		must(p.t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	box, err := os.ReadFile("/bin/busybox")
	must(p.t, err)
	must(p.t, os.WriteFile(filepath.Join(dir, "bin/busybox"), box, 0o755))
	for _, tool := range []string{"sh", "ip", "ping", "sleep", "cat"} {
		must(p.t, os.Symlink("busybox", filepath.Join(dir, "bin", tool)))
	}
}

// attached returns the only attachment, and checks that the gateway answers the container.
func (p *podman) attached(when, name string) (a hook.Attachment) {
	p.t.Helper()
	recs := p.Records()
	if len(recs) != 1 || recs[0].Verdict.Code != verify.OK ||
		recs[0].Endpoint.Tags.String() != "VLAN 50" {
		p.t.Fatalf("%s: the records are %+v", when, recs)
	}
	p.must("exec", name, "ping", "-c1", "-W5", "192.168.50.1")
	return recs[0]
}

func (p *podman) wantNone(when string) {
	p.t.Helper()
	if recs := p.Records(); len(recs) > 0 {
		p.t.Errorf("%s: records are left: %+v", when, recs)
	}
}

// TestPodmanNetwork checks each way in which podman puts a container on a network of the plugin.
func TestPodmanNetwork(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky") // podman 4.3 has no plugins
	testenv.OnOneKernel(t, "6.12")
	p := newPodman(t)
	p.AddGateway(50, "192.168.50.1/24")
	p.define("eth9.50")
	if out, err := p.run("network", "create", "-d", "lanyard", "-o", "network=nowhere", "bad"); err == nil ||
		!strings.Contains(out, `"nowhere"`) {
		t.Errorf("a network that is not defined: %v: %s", err, out)
	}
	p.must("network", "create", "-d", "lanyard", "-o", "network=web", "web50")

	if out, err := p.start("one", "--network", "web50"); err != nil {
		t.Fatalf("podman run: %v: %s", err, out)
	}
	p.attached("run", "one")
	if out := p.must("inspect", "one"); !strings.Contains(out, `"IPAddress": "192.168.50.2"`) {
		t.Errorf("podman inspect does not show the address: %s", out)
	}
	if out := p.must("exec", "one", "cat", "/etc/resolv.conf"); !strings.Contains(out, "nameserver 192.168.50.1") ||
		!strings.Contains(out, "search lan.example") {
		t.Errorf("resolv.conf is %q", out)
	}
	p.must("restart", "--time", "0", "one")
	p.attached("restart", "one")
	p.must("stop", "--time", "0", "one")
	p.wantNone("stop")
	p.must("start", "one")
	p.attached("start", "one")
	p.must("rm", "--force", "--time", "0", "one")
	p.wantNone("rm")

	// An address and a MAC of the user's choice; a second network; a network for a container
	// that runs.
	second := "web50:ip=192.168.50.9,mac=02:00:00:00:00:09,interface_name=lan0"
	if out, err := p.start("two", "--network", second); err != nil {
		t.Fatalf("podman run: %v: %s", err, out)
	}
	if a := p.attached("options", "two"); fmt.Sprintf("%v %v %s", a.Addrs, a.MAC, a.Interface) !=
		"[192.168.50.9/24] 02:00:00:00:00:09 lan0" {
		t.Errorf("options: the record is %+v", a)
	}
	if out, err := p.start("three", "--network", "web50:ip=192.168.50.9"); err == nil ||
		!strings.Contains(out, "192.168.50.9 is held by") {
		t.Errorf("an address in use: %v: %s", err, out)
	}
	p.must("rm", "--force", "--time", "0", "two", "three")
	if out, err := p.start("four", "--network", "podman"); err != nil {
		t.Fatalf("podman run: %v: %s", err, out)
	}
	p.must("network", "connect", "web50", "four")
	if a := p.attached("network connect", "four"); a.Interface != "eth1" {
		t.Errorf("connect: the record is %+v", a)
	}
	p.must("network", "disconnect", "web50", "four")
	p.wantNone("network disconnect")
	p.must("rm", "--force", "--time", "0", "four")
	p.must("network", "rm", "web50")
}

// TestPodmanNetworkKept checks that the commands of podman that change a running container leave it on the
// plugin's network, and that a restored container is there again.
func TestPodmanNetworkKept(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky")
	testenv.ByName(t)
	p := newPodman(t)
	p.AddGateway(50, "192.168.50.1/24")
	p.define("eth9.50")
	p.must("network", "create", "-d", "lanyard", "-o", "network=web", "web50")
	// CRIU ends a system call that waits.
	p.must("--runtime", "runc", "run", "--detach", "--name", "one", "--cap-add", "NET_RAW", "--network",
		"web50:ip=192.168.50.9", "--rootfs", p.dir+"/rootfs", "sh", "-c", "while :; do sleep 1; done")
	p.must("container", "checkpoint", "one")
	p.wantNone("checkpoint")
	p.must("container", "restore", "one")
	first := p.attached("restore", "one")
	if got := fmt.Sprint(first.Addrs); got != "[192.168.50.9/24]" {
		t.Errorf("after the restore, the addresses are %s", got)
	}
	for _, line := range []string{
		"pause one", "unpause one", "rename one two", "rename two one", "system renumber",
	} {
		p.must(strings.Fields(line)...)
		if recs := p.Records(); len(recs) != 1 || recs[0].ID != first.ID {
			t.Errorf("%s: the records are %+v", line, recs)
		}
	}
	p.must("network", "reload", "one")
	if now := p.attached("network reload", "one"); now.Addrs[0] != first.Addrs[0] {
		t.Errorf("after network reload, the addresses are %v", now.Addrs)
	}
	p.must("system", "migrate") // stops it
	p.must("start", "one")
	p.attached("start", "one")
	p.must("rm", "--force", "--time", "0", "one")
	p.wantNone("rm")
}
