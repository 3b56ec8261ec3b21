//go:build vm

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// image creates an image of a user's root file system, after changing it.
func (r *rootless) image(uid int, name string, change func(rootfs string) error) {
	r.t.Helper()
	dir := filepath.Join(r.home(uid), name)
	must(r.t, os.MkdirAll(dir, 0o755))
	rootfs := mustRootfs(r.t, dir, uid)
	must(r.t, change(rootfs))
	file := filepath.Join(dir, "image.tar")
	if out, err := exec.Command("tar", "--owner=0", "--group=0", "--numeric-owner", "-C", rootfs, "-cf", file,
		".").CombinedOutput(); err != nil {
		r.t.Fatalf("tar: %v: %s", err, out)
	}
	r.mustPodman(uid, "import", "--quiet", file, "localhost/"+name)
}

// onWeb are the options that put a container on the network.
var onWeb = []string{"--network", "none", "--cap-add", "NET_RAW", "--annotation", "io.lanyard.network=web"}

// TestRootlessResolvConf checks name resolution in several kinds of images: the container
// reads Lanyard's resolv.conf, and the files of image and host are unchanged.
func TestRootlessResolvConf(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	r := newRootless(t, "crun", nil)
	secret := filepath.Join(r.home(alice), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Chown(secret, alice, alice))
	const want = "search lab.example\nnameserver 192.168.50.1\n"
	reads := func(image string, options ...string) (string, error) {
		args := append(append([]string{"run", "--rm"}, onWeb...), options...)
		return r.podman(alice, append(args, "localhost/"+image, "cat", "/etc/resolv.conf")...)
	}
	r.image(alice, "plain", func(rootfs string) error {
		return os.WriteFile(rootfs+"/etc/resolv.conf", []byte("nameserver 1.1.1.1\n"), 0o644)
	})
	r.image(alice, "hostile", func(rootfs string) error {
		return os.Symlink(strings.Repeat("../", 30)+secret, rootfs+"/etc/resolv.conf")
	})
	r.image(alice, "without", func(rootfs string) error { return nil })
	for _, c := range []struct{ runtime, image, option string }{
		{"crun", "plain", "--read-only=false"}, {"crun", "without", "--read-only=false"},
		{"crun", "hostile", "--read-only=false"}, {"crun", "plain", "--read-only"},
		{"runc", "hostile", "--read-only=false"}, {"runc", "plain", "--read-only"},
	} {
		r.runtime = c.runtime
		if out, err := reads(c.image, c.option); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s, image %q, %s: the container reads %q, %v", c.runtime, c.image, c.option, out, err)
		}
	}
	// If the image has no file to mount it over, crun says that the hook failed, and the
	// service has the reason.
	r.runtime = "crun"
	if out, err := reads("without", "--read-only"); err == nil {
		t.Errorf("with a read-only root without one the container reads %q", out)
	}
	if lines := r.why(alice); len(lines) != 1 || !strings.Contains(lines[0], "-v FILE:/etc/resolv.conf") {
		t.Errorf("alice is told %q", lines)
	}
	own := filepath.Join(r.home(alice), "resolv.conf")
	must(t, os.WriteFile(own, []byte("nameserver 9.9.9.9\n"), 0o644))
	if out, err := reads("without", "--read-only", "-v", own+":/etc/resolv.conf"); err != nil ||
		out != "nameserver 9.9.9.9\n" {
		t.Errorf("with a file of its own the container reads %q, %v", out, err)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
		t.Errorf("alice's file is %q, %v", text, err)
	}
	r.sweepService()
}

// TestRootlessPodmanPod checks a podman pod: its containers are in the namespace of one
// that has no hook, and share one interface. "podman system reset" removes everything.
func TestRootlessPodmanPod(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	r := newRootless(t, "crun", nil)
	before := r.Links(r.Host)
	r.image(alice, "plain", func(string) error { return nil })
	r.mustPodman(alice, "pod", "create", "--name", "p", "--network", "none", "--infra-image", "localhost/plain",
		"--infra-command", "sleep 300")
	for name, runtime := range map[string]string{"one": "crun", "two": "runc"} {
		r.runtime = runtime
		r.mustPodman(alice, "run", "--detach", "--pod", "p", "--name", name, "--cap-add", "NET_RAW", "--annotation",
			"io.lanyard.network=web", "localhost/plain", "sleep", "300")
	}
	if a := r.Record(); len(a.Containers) != 2 || a.Verdict.Code != verify.OK || a.Guard == nil {
		t.Errorf("record is %+v", a)
	}
	r.mustPodman(alice, "exec", "two", "ping", "-c1", "-W5", "192.168.50.1")
	r.mustPodman(alice, "pod", "restart", "p")
	if a := r.Record(); len(a.Containers) != 2 {
		t.Errorf("record is %+v", a)
	}
	r.mustPodman(alice, "exec", "one", "ping", "-c1", "-W5", "192.168.50.1")
	r.mustPodman(alice, "kill", "--signal", "KILL", "one")
	// The other containers still run when everything is removed. On a slow machine, podman 4.3 removes
	// its store while the file system of the last container is still in use, and fails then.
	if out, err := r.podman(alice, "system", "reset", "--force"); err != nil {
		t.Logf("podman system reset: %v: %s", err, out)
		r.mustPodman(alice, "system", "reset", "--force")
	}
	r.sweepService()
	r.WantNothing("web", before)
}

// TestRootlessSecondInterface attaches to a container that has podman's own interface.
// The IPv4 default route stays podman's unless the annotation says otherwise; the IPv6
// one, which podman does not set here, is Lanyard's.
func TestRootlessSecondInterface(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	r := newRootless(t, "crun", nil)
	must(t, os.Chmod("/dev/net/tun", 0o666)) // as udev has it
	halves := []string{"0.0.0.0/1 via 192.168.50.1 dev lan0", "128.0.0.0/1 via 192.168.50.1 dev lan0"}
	for _, test := range []struct {
		runtime, option string
		annotations     []string
		routes          []string
	}{
		{"crun", "none", []string{asValue(t, `io.lanyard.networks=[{"name":"web","interface":"lan0"}]`)}, nil},
		{"runc", "in JSON", []string{
			asValue(t, `io.lanyard.networks=[{"name":"web","interface":"lan0","default-route":true}]`),
		}, halves},
		{"crun", "by itself", []string{"io.lanyard.network=web", "io.lanyard.interface=lan0",
			"io.lanyard.default-route=true"}, halves},
	} {
		r.runtime = test.runtime
		args := []string{"run", "--detach", "--name", "a1", "--network", "slirp4netns:enable_ipv6=false", "--cap-add",
			"NET_RAW"}
		for _, a := range test.annotations {
			args = append(args, "--annotation", a)
		}
		r.mustPodman(alice, append(args, "--rootfs", filepath.Join(r.home(alice), "rootfs"), "sleep", "300")...)
		if a := r.Record(); a.Guard == nil || a.Verdict.Code != verify.OK || (len(a.Others) > 0) != (test.routes == nil) {
			t.Errorf("record is %+v", a)
		}
		routes := r.mustPodman(alice, "exec", "a1", "sh", "-c", "ip route; ip -6 route; ping -c1 -W5 -I lan0 192.168.50.1")
		for _, want := range append(test.routes, "default via 10.0.2.2 dev tap0", "192.168.50.0/24 dev lan0",
			"default via fd50::1 dev lan0") {
			if !strings.Contains(routes, want) {
				t.Errorf("%s, %s: there is no route %q in %s", test.runtime, test.option, want, routes)
			}
		}
		if n := strings.Count(routes, " via "); n != 2+len(test.routes) {
			t.Errorf("%s, %s: %d routes by a gateway: %s", test.runtime, test.option, n, routes)
		}
		r.mustPodman(alice, "rm", "--force", "--time", "0", "a1")
	}
}

// asValue returns a value with commas and quotes as podman's --annotation takes it: podman up to 4.9
// parses CSV (RFC 4180), later ones take the value literally.
func asValue(t *testing.T, s string) string {
	t.Helper()
	out, err := exec.Command("podman", "--version").Output()
	must(t, err)
	var major int
	if _, err := fmt.Sscanf(string(out), "podman version %d.", &major); err != nil {
		t.Fatalf("podman says %q: %v", out, err)
	}
	if major >= 5 {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}
