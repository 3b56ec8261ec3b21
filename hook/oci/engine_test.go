package oci

import (
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
)

// Annotations as the engines write them, without Lanyard's.
var (
	byCRIO = map[string]string{
		"io.container.manager":              "cri-o",
		"io.kubernetes.cri-o.SandboxID":     "sb1",
		"io.kubernetes.cri-o.ContainerType": "container",
		"io.kubernetes.cri-o.ContainerID":   "c1",
		"io.kubernetes.cri-o.SandboxName":   "k8s_web-0_prod",
		"io.kubernetes.cri-o.Metadata":      "{}",
		"io.kubernetes.pod.namespace":       "prod",
		"io.kubernetes.pod.name":            "web-0",
		"io.kubernetes.pod.uid":             "u1",
		"io.kubernetes.container.name":      "app",
	}
	byContainerd = map[string]string{
		"io.kubernetes.cri.container-type":    "container",
		"io.kubernetes.cri.sandbox-id":        "sb1",
		"io.kubernetes.cri.sandbox-namespace": "prod",
		"io.kubernetes.cri.sandbox-name":      "web-0",
		"io.kubernetes.cri.sandbox-uid":       "u1",
		"io.kubernetes.cri.container-name":    "app",
		"io.kubernetes.cri.image-name":        "registry/app",
	}
	byPodman4 = map[string]string{
		"io.container.manager":                "libpod",
		"io.kubernetes.cri-o.SandboxID":       "infra1",
		"io.kubernetes.cri-o.ContainerType":   "container",
		"io.kubernetes.cri-o.TTY":             "false",
		"io.kubernetes.cri-o.Created":         "2026-11-29T01:00:00Z",
		"org.opencontainers.image.stopSignal": "15",
	}
	byPodman5 = map[string]string{"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1"}
	byHand    = map[string]string{}
)

// with returns changed annotations: "key=value" sets, "-key" removes.
func with(a map[string]string, changes ...string) map[string]string {
	a = maps.Clone(a)
	for _, c := range changes {
		if k, gone := strings.CutPrefix(c, "-"); gone {
			delete(a, k)
			continue
		}
		k, v, _ := strings.Cut(c, "=")
		a[k] = v
	}
	return a
}

func parseOf(a map[string]string) (hook.Request, error) {
	r, _, err := Parse(&specs.State{ID: "c1", Pid: 7, Annotations: with(a, "io.lanyard.network=web")})
	return r, err
}

// TestEngines checks which engine and pod is read from the annotations of each engine.
func TestEngines(t *testing.T) {
	pod := hook.Pod{Sandbox: "sb1", Namespace: "prod", Name: "web-0"}
	for name, test := range map[string]struct {
		annotations map[string]string
		name        string
		pod         hook.Pod
	}{
		"CRI-O":                           {byCRIO, "app", pod},
		"CRI-O, no manager":               {with(byCRIO, "-io.container.manager"), "app", pod},
		"CRI-O, crun's key for wasm":      {with(byCRIO, "io.kubernetes.cri.container-type=container"), "app", pod},
		"containerd":                      {byContainerd, "app", pod},
		"containerd 1.5, no uid":          {with(byContainerd, "-io.kubernetes.cri.sandbox-uid"), "app", pod},
		"containerd, the kubelet's label": {with(byContainerd, "io.kubernetes.pod.namespace=prod"), "app", pod},
		"pod of podman 4":                 {byPodman4, "", hook.Pod{}},
		"pod of podman 5":                 {byPodman5, "", hook.Pod{}},
		"podman 4, no pod": {with(byHand, "io.container.manager=libpod", "io.kubernetes.cri-o.TTY=true",
			"io.kubernetes.cri-o.Created=x"), "", hook.Pod{}},
		"podman kube play of what it generated": {with(byPodman5, "io.kubernetes.cri-o.TTY/web=false",
			"io.kubernetes.cri-o.SandboxID/web=old"), "", hook.Pod{}},
		"podman, no pod": {with(byHand, "io.container.manager=libpod"), "", hook.Pod{}},
		"by hand":        {byHand, "", hook.Pod{}},
	} {
		r, err := parseOf(test.annotations)
		if err != nil || r.Name != test.name || r.Pod != test.pod {
			t.Errorf("%s: got %q, %+v, %v, want %q, %+v", name, r.Name, r.Pod, err, test.name, test.pod)
		}
	}
}

// TestEnginesRefuse checks that annotations that the author of a pod can add do not turn the
// pod into a container of root, or into a pod of another Kubernetes namespace.
func TestEnginesRefuse(t *testing.T) {
	const podmans, noNamespace, both = "io.container.manager=libpod",
		"pods that are in no Kubernetes namespace", "contradict each other"
	for name, test := range map[string]struct {
		annotations map[string]string
		want        string
	}{
		"CRI-O, podman's manager": {with(byCRIO, podmans), both},
		"CRI-O, podman's manager, no labels": {with(byCRIO, podmans, "-io.kubernetes.pod.namespace",
			"-io.kubernetes.pod.name", "-io.kubernetes.pod.uid", "-io.kubernetes.container.name"), both},
		"CRI-O, another manager":        {with(byCRIO, "io.container.manager=mine"), both},
		"CRI-O, containerd's namespace": {with(byCRIO, "io.kubernetes.cri.sandbox-namespace=shop"), both},
		"CRI-O, an empty sandbox": {with(byCRIO, "io.kubernetes.cri-o.SandboxID="),
			"no annotation names the sandbox"},
		"CRI-O, no sandbox": {with(byCRIO, "-io.kubernetes.cri-o.SandboxID"),
			"no annotation names the sandbox"},
		"CRI-O, no namespace":                   {with(byCRIO, "-io.kubernetes.pod.namespace"), noNamespace},
		"CRI-O, an empty namespace":             {with(byCRIO, "io.kubernetes.pod.namespace="), noNamespace},
		"containerd, podman's manager":          {with(byContainerd, podmans), both},
		"containerd, podman's pod":              {with(byContainerd, podmans, "io.kubernetes.cri-o.SandboxID=sb1"), both},
		"containerd, CRI-O's manager":           {with(byContainerd, "io.container.manager=cri-o"), both},
		"containerd, another namespace's label": {with(byContainerd, "io.kubernetes.pod.namespace=shop"), both},
		"containerd, another pod's name":        {with(byContainerd, "io.kubernetes.pod.name=db-0"), both},
		"containerd, an empty namespace":        {with(byContainerd, "io.kubernetes.cri.sandbox-namespace="), noNamespace},
		"containerd, an empty sandbox": {with(byContainerd, "io.kubernetes.cri.sandbox-id="),
			"no annotation names the sandbox"},
		"containerd 1.2, the type and sandbox": {with(byHand, "io.kubernetes.cri.container-type=container",
			"io.kubernetes.cri.sandbox-id=sb1"), noNamespace},
		"a name with NUL":            {with(byContainerd, "io.kubernetes.cri.sandbox-name=a\x00b"), "printable"},
		"a name of 300":              {with(byCRIO, "io.kubernetes.pod.name="+strings.Repeat("a", 300)), "printable"},
		"the type alone":             {with(byHand, "io.kubernetes.cri.container-type=container"), noNamespace},
		"CRI-O's type alone":         {with(byHand, "io.kubernetes.cri-o.ContainerType=container"), noNamespace},
		"the type, podman's manager": {with(byHand, "io.kubernetes.cri.container-type=container", podmans), both},
		"podman's TTY, its manager overwritten": {with(byHand, "io.container.manager=x", "io.kubernetes.cri-o.TTY=true"),
			both},
		"a sandbox alone":                       {with(byHand, "io.kubernetes.cri-o.SandboxID=sb1"), noNamespace},
		"podman's pod, a namespace":             {with(byPodman4, "io.kubernetes.pod.namespace=prod"), both},
		"podman's pod, its manager overwritten": {with(byPodman4, "io.container.manager=x"), both},
		"a namespace, and no engine":            {with(byHand, "io.kubernetes.pod.namespace=prod"), "no engine's sandbox"},
	} {
		r, err := parseOf(test.annotations)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %+v, %v, want one line with %q", name, r.Pod, err, test.want)
		}
	}
}

// FuzzEngines checks that no key that an author can add takes a pod out of its namespace.
func FuzzEngines(f *testing.F) {
	f.Add("io.container.manager", "libpod")
	f.Add("io.kubernetes.pod.namespace", "shop")
	f.Add("io.kubernetes.cri-o.SandboxID", "x")
	f.Add("io.kubernetes.cri.sandbox-namespace", "shop")
	f.Fuzz(func(t *testing.T, key, value string) {
		for _, engine := range []map[string]string{byCRIO, byContainerd} {
			author := map[string]string{key: value}
			maps.Copy(author, engine) // the engine writes last
			o, err := originOf(author)
			if err == nil && (o.pod != hook.Pod{Sandbox: "sb1", Namespace: "prod", Name: "web-0"}) {
				t.Errorf("with %q=%q the pod is %+v", key, value, o.pod)
			}
		}
	})
}
