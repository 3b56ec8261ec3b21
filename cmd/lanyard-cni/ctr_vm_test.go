//go:build vm

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// containerd is containerd in the host's namespace, with all its files in a directory of the test,
// and the configuration of docs/engines.md.
type containerd struct {
	*world
	t   *testing.T
	dir string
}

func newContainerd(t *testing.T) *containerd {
	t.Helper()
	if name, err := os.Hostname(); err != nil || name != "lanyard-vm" {
		t.Fatalf("this is %q, %v: not the virtual machine", name, err)
	}
	d := &containerd{newWorld(t, testenv.Config{VLANs: []uint16{50, 60}}), t, t.TempDir()}
	d.AddGateway(50, "192.168.50.1/24")
	d.Define("web50", "eth9.50", func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	self, err := os.Executable()
	must(t, err)
	for path, text := range map[string]string{
		"/opt/cni/bin/lanyard-cni":       fmt.Sprintf("#!/bin/sh\nLANYARD_ROOT=%s exec %s \"$@\"\n", d.Root, self),
		"/etc/cni/net.d/10-lan.conflist": string(documented(t)),
	} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o755))
		t.Cleanup(func() { must(t, os.Remove(path)) })
	}
	for _, sub := range []string{"bin", "proc", "sys", "dev", "etc", "run"} {
		must(t, os.MkdirAll(filepath.Join(d.rootfs(), sub), 0o755))
	}
	box, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(d.rootfs()+"/bin/busybox", box, 0o755))
	d.start()
	return d
}

func (d *containerd) rootfs() string { return filepath.Join(d.dir, "rootfs") }

func (d *containerd) socket() string { return filepath.Join(d.dir, "sock") }

// start starts the daemon, and waits until it answers.
func (d *containerd) start() {
	d.t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "log"))
	must(d.t, err)
	defer log.Close()
	daemon := exec.Command("containerd", "--root", d.dir+"/root", "--state", d.dir+"/state", "--address", d.socket())
	daemon.Stdout, daemon.Stderr = log, log
	must(d.t, d.Host.Start(daemon))
	d.t.Cleanup(func() {
		daemon.Process.Signal(unix.SIGTERM)
		daemon.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err = d.ctr("version"); err == nil {
			return
		}
		if text, _ := os.ReadFile(log.Name()); time.Now().After(end) {
			d.t.Fatalf("containerd does not answer: %v: %s", err, text)
		}
	}
}

func (d *containerd) ctr(args ...string) (string, error) {
	return d.Host.Exec("ctr", append([]string{"--address", d.socket()}, args...)...)
}

// TestContainerd runs a container with containerd's "ctr run --cni".
func TestContainerd(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky")
	testenv.OnOneKernel(t, "6.12")
	d := newContainerd(t)
	t.Cleanup(func() {
		for _, id := range []string{"one", "two"} { // "ctr run" leaves a container whose ADD fails
			d.ctr("tasks", "delete", "--force", id)
			d.ctr("containers", "delete", id)
		}
	})
	run := []string{"run", "--rm", "--cni", "--rootfs", d.rootfs()}
	out, err := d.ctr(append(run, "one", "/bin/busybox", "ping", "-c1", "-W5", "192.168.50.1")...)
	if err != nil || !strings.Contains(out, "1 packets received") {
		t.Errorf("ctr run: %v: %s", err, out)
	}
	d.wantNothing("web50")
	d.RemoveNetwork("web50")
	out, err = d.ctr(append(run, "two", "/bin/busybox", "true")...)
	if err == nil || !strings.Contains(out, `network "web50"`) {
		t.Errorf("ctr run without the network: %v: %s", err, out)
	}
}

// TestNerdctl runs containers with nerdctl: on a network by its name, and with an address of the
// user's choice.
func TestNerdctl(t *testing.T) {
	testenv.ByName(t) // nerdctl takes minutes to build
	testenv.InSuite(t, "trixie", "forky")
	program, err := filepath.Abs("../../bin/nerdctl")
	must(t, err)
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run make bin/nerdctl", err)
	}
	d := newContainerd(t)
	// nerdctl makes a default network of its own, and looks for the plugins of that.
	plugins, err := filepath.Glob("/host/usr/lib/cni/*")
	must(t, err)
	for _, path := range plugins {
		link := "/opt/cni/bin/" + filepath.Base(path)
		must(t, os.Symlink(path, link))
		t.Cleanup(func() { must(t, os.Remove(link)) })
	}
	nerdctl := func(args ...string) (string, error) {
		return d.Host.Exec(program, append([]string{"--address", d.socket(), "--data-root", d.dir + "/nerdctl"}, args...)...)
	}
	run := func(name string, options ...string) (string, error) {
		args := append([]string{"run", "--detach", "--name", name, "--network", "lan"}, options...)
		return nerdctl(append(args, "--rootfs", d.rootfs(), "/bin/busybox", "sleep", "300")...)
	}
	t.Cleanup(func() { nerdctl("rm", "--force", "one", "two", "three") })
	if out, err := run("one"); err != nil {
		t.Fatalf("nerdctl run: %v: %s", err, out)
	}
	if a := d.Records()[0]; a.Verdict.Code != verify.OK || a.Endpoint.Tags.String() != "VLAN 50" {
		t.Errorf("the record is %+v", a)
	}
	if out, err := nerdctl("exec", "one", "/bin/busybox", "ping", "-c1", "-W5", "192.168.50.1"); err != nil {
		t.Errorf("ping: %v: %s", err, out)
	}
	if out, err := nerdctl("rm", "--force", "one"); err != nil {
		t.Errorf("nerdctl rm: %v: %s", err, out)
	}
	d.wantNothing("web50")
	if out, err := run("two", "--ip", "192.168.50.77"); err != nil {
		t.Fatalf("nerdctl run --ip: %v: %s", err, out)
	}
	if a := d.Records()[0]; a.Addrs[0].String() != "192.168.50.77/24" {
		t.Errorf("with --ip the record is %+v", a)
	}
	if out, err := run("three", "--ip", "192.168.50.77"); err == nil || !strings.Contains(out, "192.168.50.77 is held by") {
		t.Errorf("an address in use: %v: %s", err, out)
	}
	if out, err := nerdctl("rm", "--force", "two"); err != nil {
		t.Errorf("nerdctl rm: %v: %s", err, out)
	}
	d.wantNothing("web50")
}
