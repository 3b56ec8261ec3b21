//go:build vm

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
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
	c := w.StartContainerd("")
	t.Cleanup(func() {
		for _, id := range []string{"one", "two"} { // "ctr run" leaves a container whose ADD fails
			c.Ctr("tasks", "delete", "--force", id)
			c.Ctr("containers", "delete", id)
		}
	})
	run := []string{"run", "--rm", "--cni", "--rootfs", c.Rootfs()}
	out, err := c.Ctr(append(run, "one", "/bin/busybox", "ping", "-c1", "-W5", "192.168.50.1")...)
	if err != nil || !strings.Contains(out, "1 packets received") {
		t.Errorf("ctr run: %v: %s", err, out)
	}
	w.wantNothing("web50")
	w.RemoveNetwork("web50")
	out, err = c.Ctr(append(run, "two", "/bin/busybox", "true")...)
	if err == nil || !strings.Contains(out, `network "web50"`) {
		t.Errorf("ctr run without the network: %v: %s", err, out)
	}
}

// TestCRI has crictl run pods in containerd, as the kubelet does. Their only network is that of
// lanyard-cni.
func TestCRI(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky")
	testenv.ByName(t) // crictl takes minutes to build
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web50", "eth9.50", func(d *network.Definition) {
		d.Verify, d.KubernetesNamespaces = verify.Strict, []string{"prod"}
	}, "192.168.50.0/24")
	dir := t.TempDir()
	self, err := os.Executable()
	must(t, err)
	text := fmt.Sprintf("#!/bin/sh\nLANYARD_ROOT=%s exec %s \"$@\"\n", w.Root, self)
	must(t, os.WriteFile(dir+"/lanyard-cni", []byte(text), 0o755))
	must(t, os.Symlink(debianPlugins+"/loopback", dir+"/loopback")) // containerd runs it, too
	must(t, os.WriteFile(dir+"/10-lan.conflist", documented(t), 0o600))
	c := w.StartContainerd(fmt.Sprintf("[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = %q\nconf_dir = %[1]q\n",
		dir))
	c.ImportImage()

	pod, err := c.RunPod(hooklab.Pod{Namespace: "prod", Name: "web-0"})
	must(t, err)
	c.Exec(pod.MustStart("app", "sleep", "300"), "ping", "-c1", "-W5", "-I", "eth0", "192.168.50.1")
	if recs := w.Records(); len(recs) != 1 || recs[0].Verdict.Code != verify.OK || recs[0].Interface != "eth0" ||
		recs[0].Pod != (hook.Pod{Sandbox: pod.ID, Namespace: "prod", Name: "web-0"}) {
		t.Errorf("the records are %+v", recs)
	}
	if _, err := c.RunPod(hooklab.Pod{Namespace: "bank", Name: "web-0"}); err == nil ||
		!strings.Contains(err.Error(), `pods of the Kubernetes namespace "bank" may not use it`) {
		t.Errorf("a pod of another namespace: %v", err)
	}
	pod.Remove()
	w.wantNothing("web50")
}
