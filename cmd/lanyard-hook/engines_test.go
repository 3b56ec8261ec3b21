package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// engineState is a state with an engine's annotations besides ours.
func engineState(t *testing.T, id string, pid int, engine map[string]string, annotations ...string) []byte {
	t.Helper()
	var s specs.State
	must(t, json.Unmarshal(state(id, pid, annotations...), &s))
	maps.Copy(s.Annotations, engine)
	b, err := json.Marshal(s)
	must(t, err)
	return b
}

// containerdPod is what containerd writes for a container of a pod.
func containerdPod(namespace, pod, container string) map[string]string {
	return map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": container,
		"io.kubernetes.cri.sandbox-id": "sandbox-" + pod, "io.kubernetes.cri.sandbox-uid": "uid-" + pod,
		"io.kubernetes.cri.sandbox-namespace": namespace, "io.kubernetes.cri.sandbox-name": pod,
		"io.kubernetes.cri.image-name": "registry/" + container,
	}
}

// crioPod is what CRI-O writes for a container of a pod.
func crioPod(namespace, pod, container string) map[string]string {
	return map[string]string{
		"io.container.manager": "cri-o", "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "sandbox-" + pod,
		"io.kubernetes.cri-o.ContainerID": pod + container, "io.kubernetes.cri-o.SandboxName": "k8s_" + pod + "_" + namespace,
		"io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": pod, "io.kubernetes.container.name": container,
	}
}

// podEngines give what a state of a pod's container holds.
var podEngines = map[string]func(namespace, pod, container string) map[string]string{"CRI-O": crioPod, "containerd": containerdPod}

// podmanPod is what podman 4.3 writes for a container of a pod of its own; 5.x leaves
// the last two keys out.
var podmanPod = map[string]string{
	"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1",
	"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.TTY": "false",
}

// podNetworks defines "web" for pods of the namespace prod, and "closed" for none.
func podNetworks(t *testing.T, edit func(*network.Definition)) *world {
	t.Helper()
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "192.168.51.1/24", "203.0.113.9/32")
	w.define("web", w.Trunk, func(d *network.Definition) {
		d.ShareParent, d.KubernetesNamespaces = true, []string{"prod"}
		if edit != nil {
			edit(d)
		}
	}, "192.168.50.0/24")
	w.define("closed", w.Trunk, func(d *network.Definition) { d.ShareParent = true }, "192.168.51.0/24")
	return w
}

// Under both engines a pod gets only what its Kubernetes namespace may have, and its
// author takes neither another namespace's networks nor the default route.
func TestPodsOfBothEngines(t *testing.T) {
	for engine, of := range podEngines {
		t.Run(engine, func(t *testing.T) {
			others := podEngines[map[string]string{"CRI-O": "containerd", "containerd": "CRI-O"}[engine]]
			w := podNetworks(t, nil)
			before := w.links(w.Host)
			pod := newPod(t)
			const may, both = `pods of the Kubernetes namespace "%s" may not use it`, "contradict each other"
			for what, bad := range map[string]struct {
				namespace, network string
				author             map[string]string // that the engine does not overwrite
				word               string
			}{
				"another namespace": {"bank", "web", nil, fmt.Sprintf(may, "bank")},
				"no namespace":      {"", "web", nil, "pods that are in no Kubernetes namespace"},
				"not listed at all": {"prod", "closed", nil, fmt.Sprintf(may, "prod")},
				"podman's manager":  {"bank", "web", map[string]string{"io.container.manager": "libpod"}, both},
				"podman's own pod":  {"bank", "web", podmanPod, both},
				"the other's keys":  {"bank", "web", others("prod", "web-0", "app"), both},
				"another's sandbox": {"bank", "web", map[string]string{"io.kubernetes.cri.sandbox-id": "x", "io.kubernetes.cri-o.SandboxID": "x"}, both},
			} {
				annotations := of(bad.namespace, "web-0", "app")
				maps.Copy(annotations, bad.author)
				w.refused(what, w.run(engineState(t, "c1", pod.Pid, annotations, "network="+bad.network), []string{"createRuntime"}), 1, bad.word)
			}
			w.wantNothing("web", before)
			want := `networks=[{"name":"web","interface":"lan0","default-route":true}]`
			if o := w.run(engineState(t, "c1", pod.Pid, of("prod", "web-0", "app"), want), []string{"createRuntime"}); o.status != 0 {
				t.Fatal(o.stderr)
			}
			pings(t, pod.Namespace, "192.168.50.1")
			if routes := routesOf(t, pod, "-4"); !strings.HasPrefix(routes[0], "default dev cluster") || len(routes) != 2 {
				t.Errorf("the author's default-route moved the pod's routes: %q", routes)
			}
			a := w.record()
			if a.Containers[0].Name != "app" || a.Pod != (hook.Pod{Sandbox: "sandbox-web-0", Namespace: "prod", Name: "web-0"}) {
				t.Errorf("recorded: %q of %+v", a.Containers[0].Name, a.Pod)
			}
		})
	}
}

// The network may say that it takes a pod's default route.
func TestContainerdPodDefaultRoute(t *testing.T) {
	w := podNetworks(t, func(d *network.Definition) { d.PodDefaultRoute = true })
	pod := newPod(t)
	if o := w.run(engineState(t, "c1", pod.Pid, containerdPod("prod", "web-0", "app"), "network=web", "interface=lan0"), []string{"createRuntime"}); o.status != 0 {
		t.Fatal(o.stderr)
	}
	pings(t, pod.Namespace, "203.0.113.9")
}

// A pod of podman's own is not of Kubernetes: it is root's, as its containers are.
func TestPodmanPods(t *testing.T) {
	w := podNetworks(t, nil)
	infra := testenv.NewContainer(t)
	for i, keys := range []map[string]string{podmanPod, {"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1"}} {
		c := testenv.JoinNamespace(t, infra.Namespace)
		if o := w.run(engineState(t, fmt.Sprint("c", i), c.Pid, keys, "network=closed"), []string{"createRuntime"}); o.status != 0 {
			t.Fatalf("%v: %s", keys, o.stderr)
		}
	}
	a := w.record()
	if len(a.Containers) != 2 || a.Pod != (hook.Pod{}) || fmt.Sprint(a.Defaults) != "[192.168.51.1]" {
		t.Errorf("recorded: %+v", a)
	}
}

// A pod's stable address goes by the pod, whichever of its containers starts first.
func TestStablePods(t *testing.T) {
	for engine, of := range podEngines {
		t.Run(engine, func(t *testing.T) {
			w := podNetworks(t, func(d *network.Definition) { d.Allocate = network.AllocateStable })
			first := ""
			for i, container := range []string{"app", "log", "app"} {
				pod := testenv.NewContainer(t)
				id := fmt.Sprint("c", i)
				if o := w.run(engineState(t, id, pod.Pid, of("prod", "web-0", container), "network=web"), []string{"createRuntime"}); o.status != 0 {
					t.Fatal(o.stderr)
				}
				if a := fmt.Sprint(w.record().Addrs); first == "" {
					first = a
				} else if a != first {
					t.Errorf("container %q got %s, the pod had %s", container, a, first)
				}
				pod.End(t)
				w.mustDetach(id)
			}
		})
	}
}
