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

// TestContainerd runs a container with containerd's "ctr run --cni", and with the configuration of
// docs/engines.md.
func TestContainerd(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky")
	testenv.OnOneKernel(t, "6.12")
	if name, err := os.Hostname(); err != nil || name != "lanyard-vm" {
		t.Fatalf("this is %q, %v: not the virtual machine", name, err)
	}
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web50", "eth9.50", func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	self, err := os.Executable()
	must(t, err)
	for path, text := range map[string]string{
		"/opt/cni/bin/lanyard-cni":       fmt.Sprintf("#!/bin/sh\nLANYARD_ROOT=%s exec %s \"$@\"\n", w.Root, self),
		"/etc/cni/net.d/10-lan.conflist": string(documented(t)),
	} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o755))
		t.Cleanup(func() { must(t, os.Remove(path)) })
	}
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	defer log.Close()
	socket := filepath.Join(dir, "sock")
	daemon := exec.Command("containerd", "--root", dir+"/root", "--state", dir+"/state", "--address", socket)
	daemon.Stdout, daemon.Stderr = log, log
	must(t, w.Host.Start(daemon))
	t.Cleanup(func() {
		daemon.Process.Signal(unix.SIGTERM)
		daemon.Wait()
	})
	ctr := func(args ...string) (string, error) {
		return w.Host.Exec("ctr", append([]string{"--address", socket}, args...)...)
	}
	t.Cleanup(func() {
		for _, id := range []string{"one", "two"} { // "ctr run" leaves a container whose ADD fails
			ctr("tasks", "delete", "--force", id)
			ctr("containers", "delete", id)
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err = ctr("version"); err == nil {
			break
		}
		if text, _ := os.ReadFile(log.Name()); time.Now().After(end) {
			t.Fatalf("containerd does not answer: %v: %s", err, text)
		}
	}
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "run"} {
		must(t, os.MkdirAll(filepath.Join(rootfs, d), 0o755))
	}
	box, err := os.ReadFile("/bin/busybox")
	must(t, err)
	must(t, os.WriteFile(rootfs+"/bin/busybox", box, 0o755))

	run := []string{"run", "--rm", "--cni", "--rootfs", rootfs}
	out, err := ctr(append(run, "one", "/bin/busybox", "ping", "-c1", "-W5", "192.168.50.1")...)
	if err != nil || !strings.Contains(out, "1 packets received") {
		t.Errorf("ctr run: %v: %s", err, out)
	}
	w.wantNothing("web50")
	w.RemoveNetwork("web50")
	out, err = ctr(append(run, "two", "/bin/busybox", "true")...)
	if err == nil || !strings.Contains(out, `network "web50"`) {
		t.Errorf("ctr run without the network: %v: %s", err, out)
	}
}
