//go:build vm

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// clusterNetwork is the CNI configuration of the cluster: pods have eth0 and the default route by it.
const clusterNetwork = `{"cniVersion": "1.0.0", "name": "cluster", "plugins": [{"type": "ptp", "ipam": {
	"type": "host-local", "subnet": "10.244.0.0/24", "routes": [{"dst": "0.0.0.0/0"}], "dataDir": %q}}]}`

// newCRI starts a containerd with the runtime handler of docs/engines.md, and with Debian's CNI
// plugins for the cluster's network.
func newCRI(t *testing.T, w *world) *hooklab.Containerd {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/net.d", 0o755))
	must(t, os.WriteFile(dir+"/net.d/10-cluster.conflist", fmt.Appendf(nil, clusterNetwork, dir+"/addresses"), 0o600))
	out, err := exec.Command("ctr", "oci", "spec").Output()
	must(t, err)
	var base specs.Spec
	must(t, json.Unmarshal(out, &base))
	base.Hooks = (&engine{t: t, w: w}).hooks("createRuntime")
	text, err := json.Marshal(base)
	must(t, err)
	must(t, os.WriteFile(dir+"/cri-base.json", text, 0o600))
	c := w.StartContainerd(fmt.Sprintf("[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n"+
		"conf_dir = %q\n%s", dir+"/net.d", documentedHandler(t, dir)))
	c.ImportImage()
	return c
}

// documentedHandler returns containerd's runtime handler of docs/engines.md, with the files in a
// directory of the test.
func documentedHandler(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n\n    \[plugins\."io\.containerd.*?\n\n`).Find(text)
	if found == nil {
		t.Fatal("docs/engines.md has no runtime handler")
	}
	return strings.ReplaceAll(string(found), "/etc/containerd/", dir+"/")
}

// onWeb50 are the annotations of a pod on the network.
func onWeb50(more ...string) map[string]string {
	a := map[string]string{"io.lanyard.network": "web50"}
	for i := 0; i < len(more); i += 2 {
		a[more[i]] = more[i+1]
	}
	return a
}

// newCRIWorld makes a lab with the network web50 on VLAN 50, for pods of the Kubernetes namespace
// prod.
func newCRIWorld(t *testing.T) *world {
	t.Helper()
	mustBeInVM(t)
	testenv.InSuite(t, "trixie", "forky")
	testenv.ByName(t) // crictl takes minutes to build
	w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web50", "eth9.50", func(d *network.Definition) {
		d.Verify, d.KubernetesNamespaces = verify.Strict, []string{"prod"}
	}, "192.168.50.0/24")
	return w
}

// TestCRI has crictl run pods in containerd, as the kubelet does. A pod that crashes again and again
// keeps its interface and address. The end of the pod releases them.
func TestCRI(t *testing.T) {
	w := newCRIWorld(t)
	before := w.Links(w.Host)
	c := newCRI(t, w)
	pod, err := c.RunPod(hooklab.Pod{Namespace: "prod", Name: "web-0", Handler: "lan",
		Annotations: onWeb50("io.lanyard.default-route", "true")})
	must(t, err)

	var first hook.Attachment
	for attempt := range 3 { // the container exits after each start
		id := pod.MustStart("app", "sh", "-c", "ip addr show eth1 && exit 1")
		c.AwaitExit(id)
		a := w.keptWithout(id)
		if attempt == 0 {
			first = a
		}
		if a.ID != first.ID || fmt.Sprint(a.Addrs) != fmt.Sprint(first.Addrs) {
			t.Errorf("attempt %d has %+v, the first had %+v", attempt, a, first)
		}
		_, err = c.Crictl("rm", id)
		must(t, err)
	}
	if first.Verdict.Code != verify.OK || first.Endpoint.Tags.String() != "VLAN 50" || first.Interface != "eth1" ||
		first.Pod != (hook.Pod{Sandbox: pod.ID, Namespace: "prod", Name: "web-0"}) {
		t.Errorf("the record is %+v", first)
	}

	app, log := pod.MustStart("app", "sleep", "300"), pod.MustStart("log", "sleep", "300")
	if a := w.Record(); a.ID != first.ID || len(a.Containers) != 2 || a.Containers[0].Name != "app" {
		t.Errorf("the record is %+v", a)
	}
	c.Exec(log, "ping", "-c1", "-W5", "192.168.50.1")
	if routes := c.Exec(app, "ip", "route"); !strings.Contains(routes, "default via 10.244.0.1 dev eth0") ||
		strings.Contains(routes, "via 192.168.50.1") {
		t.Errorf("the author's default-route moved the pod's: %s", routes)
	}
	pid, err := strconv.Atoi(mustCrictl(t, c, "inspect", "--output", "go-template", "--template", "{{.info.pid}}", app))
	must(t, err)
	must(t, unix.Kill(pid, unix.SIGKILL))
	c.AwaitExit(app)
	w.keptWithout(app)
	c.Exec(log, "ping", "-c1", "-W5", "192.168.50.1")

	// containerd runs the last poststop while the sandbox's namespace exists. The next poststop of
	// another pod releases what is left.
	pod.Remove()
	second, err := c.RunPod(hooklab.Pod{Namespace: "prod", Name: "web-1", Handler: "lan", Annotations: onWeb50()})
	must(t, err)
	id := second.MustStart("app", "sh", "-c", "exit 0")
	c.AwaitExit(id)
	if a := w.keptWithout(id); a.Pod.Name != "web-1" {
		t.Errorf("the record is %+v", a)
	}
	second.Remove()
	w.sweepPods()
	w.WantNothing("web50", before)
}

// keptWithout waits for the poststop of a container, and returns the only attachment.
func (w *world) keptWithout(id string) (a hook.Attachment) {
	w.tb.Helper()
	testenv.Eventually(w.tb, "poststop", func() error {
		recs := w.Records()
		if len(recs) != 1 {
			return fmt.Errorf("there are %+v", recs)
		}
		a = recs[0]
		for _, c := range a.Containers {
			if c.ID == id {
				return fmt.Errorf("container %q is on record", id)
			}
		}
		return nil
	})
	return a
}

// sweepPods does what "lanyard gc" does, until nothing is on record.
func (w *world) sweepPods() {
	w.tb.Helper()
	testenv.Eventually(w.tb, "the end of the sandboxes", func() error {
		must(w.tb, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Sweep(ctx)
			return err
		}))
		if recs := w.Records(); len(recs) > 0 {
			return fmt.Errorf("there are %+v", recs)
		}
		return nil
	})
}

func mustCrictl(t *testing.T, c *hooklab.Containerd, args ...string) string {
	t.Helper()
	out, err := c.Crictl(args...)
	must(t, err)
	return out
}

// TestCRIRefusals checks that a network is closed to pods of the Kubernetes namespaces that it does
// not list, what the author of such a pod can add, and what an author sees of a mistake.
func TestCRIRefusals(t *testing.T) {
	w := newCRIWorld(t)
	before := w.Links(w.Host)
	c := newCRI(t, w)
	const may = `pods of the Kubernetes namespace "bank" may not use it`
	for name, bad := range map[string]struct {
		pod  hooklab.Pod
		word string
	}{
		"another-namespace": {hooklab.Pod{Namespace: "bank", Annotations: onWeb50()}, may},
		"containerds-keys": {hooklab.Pod{Namespace: "bank", Annotations: onWeb50(
			"io.kubernetes.cri.sandbox-namespace", "prod", "io.kubernetes.cri.sandbox-id", "",
			"io.kubernetes.pod.namespace", "prod")}, may},
		"podmans-keys": {hooklab.Pod{Namespace: "bank", Annotations: onWeb50("io.container.manager", "libpod")}, may},
		"host-network": {hooklab.Pod{Namespace: "prod", HostNetwork: true, Annotations: onWeb50()},
			"hostNetwork is true"},
		"misspelt": {hooklab.Pod{Namespace: "prod", Annotations: onWeb50("IO.Lanyard.mtu", "1400")}, "lower case"},
		"slash": {hooklab.Pod{Namespace: "prod", Annotations: map[string]string{"io.lanyard/network": "web50"}},
			`write "io.lanyard."`},
	} {
		bad.pod.Name, bad.pod.Handler = name, "lan"
		pod, err := c.RunPod(bad.pod)
		must(t, err)
		if id, err := pod.Start("app", "sleep", "300"); err == nil || !strings.Contains(err.Error(), bad.word) {
			t.Errorf("%s: %v", name, err)
		} else if text := mustCrictl(t, c, "inspect", id); !strings.Contains(text, "StartError") {
			t.Errorf("%s: the container is %s", name, text)
		}
		pod.Remove()
	}

	// Without the handler there is no hook: the pod starts off the LAN, as docs/engines.md says.
	pod, err := c.RunPod(hooklab.Pod{Namespace: "prod", Name: "off", Annotations: onWeb50()})
	must(t, err)
	id := pod.MustStart("app", "sleep", "300")
	if links := c.Exec(id, "ip", "-o", "link"); strings.Contains(links, "eth1") || !strings.Contains(links, "eth0") {
		t.Errorf("links without the handler: %s", links)
	}
	pod.Remove()
	w.WantNothing("web50", before)
}
