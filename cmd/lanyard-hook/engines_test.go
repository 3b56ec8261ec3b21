package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/broker"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// engineState returns a state with an engine's annotations, and with Lanyard's.
func engineState(t *testing.T, id string, pid int, engine map[string]string, annotations ...string) []byte {
	t.Helper()
	var s specs.State
	must(t, json.Unmarshal(state(id, pid, annotations...), &s))
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	maps.Copy(s.Annotations, engine)
	b, err := json.Marshal(s)
	must(t, err)
	return b
}

// containerdPod returns the annotations that containerd writes for a container of a pod.
func containerdPod(namespace, pod, container string) map[string]string {
	return map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": container,
		"io.kubernetes.cri.sandbox-id": "sandbox-" + pod, "io.kubernetes.cri.sandbox-uid": "uid-" + pod,
		"io.kubernetes.cri.sandbox-namespace": namespace, "io.kubernetes.cri.sandbox-name": pod,
		"io.kubernetes.cri.image-name": "registry/" + container,
	}
}

// crioPod returns the annotations that CRI-O writes for a container of a pod.
func crioPod(namespace, pod, container string) map[string]string {
	return map[string]string{
		"io.container.manager":              "cri-o",
		"io.kubernetes.cri-o.ContainerType": "container",
		"io.kubernetes.cri-o.SandboxID":     "sandbox-" + pod,
		"io.kubernetes.cri-o.ContainerID":   pod + container,
		"io.kubernetes.cri-o.SandboxName":   "k8s_" + pod + "_" + namespace,
		"io.kubernetes.pod.namespace":       namespace,
		"io.kubernetes.pod.name":            pod,
		"io.kubernetes.container.name":      container,
	}
}

// podEngines return the annotations of each engine for a container of a pod.
var podEngines = map[string]func(namespace, pod, container string) map[string]string{
	"CRI-O":      crioPod,
	"containerd": containerdPod,
}

// podmanPod are the annotations that podman 4.3 writes for a container of a podman pod. From
// 4.4 on it leaves the last three keys out.
var podmanPod = map[string]string{
	"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1",
	"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.TTY": "false",
	"io.kubernetes.cri-o.Created": "2026-11-29T01:00:00Z",
}

// podNetworks defines "web" for pods of the namespace prod, and "closed" for no pods.
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

// TestPodsOfBothEngines checks that a pod gets only the networks that list its Kubernetes
// namespace, and that its author cannot take another namespace's networks or the default
// route.
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
				"another's sandbox": {"bank", "web",
					map[string]string{"io.kubernetes.cri.sandbox-id": "x", "io.kubernetes.cri-o.SandboxID": "x"}, both},
			} {
				annotations := of(bad.namespace, "web-0", "app")
				maps.Copy(annotations, bad.author)
				w.refused(what, w.run(engineState(t, "c1", pod.Pid, annotations, "network="+bad.network),
					[]string{"createRuntime"}), 1, bad.word)
			}
			w.wantNothing("web", before)
			want := `networks=[{"name":"web","interface":"lan0","default-route":true}]`
			if o := w.run(engineState(t, "c1", pod.Pid, of("prod", "web-0", "app"), want),
				[]string{"createRuntime"}); o.status != 0 {
				t.Fatal(o.stderr)
			}
			pings(t, pod.Namespace, "192.168.50.1")
			if routes := routesOf(t, pod, "-4"); !strings.HasPrefix(routes[0], "default dev cluster") || len(routes) != 2 {
				t.Errorf("the author's default-route moved the pod's routes: %q", routes)
			}
			a := w.record()
			if fmt.Sprint(a.Defaults) != "[]" || fmt.Sprint(a.Others) != "[{0.0.0.0/0 invalid IP cluster}]" {
				t.Errorf("recorded: default routes by %v, left to %v", a.Defaults, a.Others)
			}
			if a.Containers[0].Name != "app" || a.Pod != (hook.Pod{Sandbox: "sandbox-web-0", Namespace: "prod", Name: "web-0"}) {
				t.Errorf("recorded: %q of %+v", a.Containers[0].Name, a.Pod)
			}
		})
	}
}

// TestPodOnHostNetwork checks that a pod with hostNetwork: true is refused in the words of a pod's
// author.
func TestPodOnHostNetwork(t *testing.T) {
	w := podNetworks(t, nil)
	before := w.links(w.Host)
	host := testenv.JoinNamespace(t, w.Host)
	for engine, of := range podEngines {
		state := engineState(t, "c1", host.Pid, of("prod", "web-0", "app"), "network=web")
		w.refused(engine, w.run(state, []string{"createRuntime"}), 1, `pod "prod/web-0"`, "hostNetwork is true",
			"remove hostNetwork, or the annotations")
	}
	w.wantNothing("web", before)
}

// TestContainerdPodDefaultRoute checks that a network with --pod-default-route takes the
// default route of a pod of containerd.
func TestContainerdPodDefaultRoute(t *testing.T) {
	w := podNetworks(t, func(d *network.Definition) { d.PodDefaultRoute = true })
	pod := newPod(t)
	if o := w.run(engineState(t, "c1", pod.Pid, containerdPod("prod", "web-0", "app"), "network=web", "interface=lan0"),
		[]string{"createRuntime"}); o.status != 0 {
		t.Fatal(o.stderr)
	}
	pings(t, pod.Namespace, "203.0.113.9")
}

// TestPodmanPods checks that a podman pod is not taken for a pod of Kubernetes.
func TestPodmanPods(t *testing.T) {
	w := podNetworks(t, nil)
	infra := testenv.NewContainer(t)
	for i, keys := range []map[string]string{podmanPod,
		{"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1"}} {
		c := testenv.JoinNamespace(t, infra.Namespace)
		if o := w.run(engineState(t, fmt.Sprint("c", i), c.Pid, keys, "network=closed"),
			[]string{"createRuntime"}); o.status != 0 {
			t.Fatalf("%v: %s", keys, o.stderr)
		}
	}
	a := w.record()
	if len(a.Containers) != 2 || a.Pod != (hook.Pod{}) || fmt.Sprint(a.Defaults) != "[192.168.51.1]" {
		t.Errorf("recorded: %+v", a)
	}
}

// TestStablePods checks that a pod's stable address does not depend on the container that
// starts first.
func TestStablePods(t *testing.T) {
	for engine, of := range podEngines {
		t.Run(engine, func(t *testing.T) {
			w := podNetworks(t, func(d *network.Definition) { d.Allocate = network.AllocateStable })
			first := ""
			for i, container := range []string{"app", "log", "app"} {
				pod := testenv.NewContainer(t)
				id := fmt.Sprint("c", i)
				if o := w.run(engineState(t, id, pod.Pid, inSandbox(of("prod", "web-0", container), "sandbox-"+id), "network=web"),
					[]string{"createRuntime"}); o.status != 0 {
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

// inSandbox returns a pod's annotations with another sandbox, as after a recreation.
func inSandbox(engine map[string]string, id string) map[string]string {
	engine = maps.Clone(engine)
	for _, k := range []string{"io.kubernetes.cri-o.SandboxID", "io.kubernetes.cri.sandbox-id"} {
		if _, set := engine[k]; set {
			engine[k] = id
		}
	}
	return engine
}

// sandbox creates a pod's network namespace as the engine keeps it: pinned, without a
// process. gone removes it.
func (w *world) sandbox(t *testing.T) (pod *testenv.Namespace, gone func()) {
	t.Helper()
	pod = testenv.NewNamespace(t, "sandbox")
	for _, args := range [][]string{
		{"link", "set", "lo", "up"}, {"link", "add", "cluster", "type", "veth", "peer", "name", "node"},
		{"link", "set", "cluster", "up"}, {"link", "set", "node", "up"}, {"route", "add", "default", "dev", "cluster"},
	} {
		_, err := pod.Exec("ip", args...)
		must(t, err)
	}
	unpin := pod.Pin(t)
	return pod, func() { unpin(); pod.Release(t) }
}

// start runs a container in the sandbox up to its createRuntime hook.
func (w *world) start(t *testing.T, id string, pod *testenv.Namespace, engine map[string]string,
	annotations ...string) *testenv.Container {
	t.Helper()
	c := testenv.JoinNamespace(t, pod)
	if o := w.run(engineState(t, id, c.Pid, engine, annotations...), []string{"createRuntime"}); o.status != 0 ||
		o.stderr != "" {
		t.Fatalf("start %s: status %d: %s", id, o.status, o.stderr)
	}
	return c
}

// sweep does what "lanyard gc" does, and returns how many attachments it released.
func (w *world) sweep() (n int) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		swept, err := l.Sweep(ctx)
		n = len(swept)
		return err
	}))
	return n
}

// wantSame checks that the pod's interface is unchanged, and works.
func (w *world) wantSame(t *testing.T, when string, pod *testenv.Namespace, first hook.Attachment) {
	t.Helper()
	a := w.record()
	if a.ID != first.ID || a.State != hook.Attached || fmt.Sprint(a.Addrs) != fmt.Sprint(first.Addrs) ||
		w.held("web") != 1 {
		t.Fatalf("%s: the pod has %+v, had %+v", when, a, first)
	}
	pings(t, pod, "192.168.50.1")
}

// TestPodOutlivesContainers checks that a pod's attachment exists for as long as the
// sandbox's namespace, also while no container runs: CrashLoopBackOff does not change the
// address.
func TestPodOutlivesContainers(t *testing.T) {
	for engine, of := range podEngines {
		t.Run(engine, func(t *testing.T) {
			w := podNetworks(t, nil)
			before := w.links(w.Host)
			pod, gone := w.sandbox(t)
			app, log := of("prod", "web-0", "app"), of("prod", "web-0", "log")
			a1, b1 := w.start(t, "a1", pod, app, "network=web"), w.start(t, "b1", pod, log, "network=web")
			first := w.record()
			if len(first.Containers) != 2 {
				t.Fatalf("containers are %+v", first.Containers)
			}
			must(t, a1.Kill())
			w.mustDetach("a1")
			w.wantSame(t, "one container exited", pod, first)
			must(t, b1.Kill()) // all are dead, and poststop has not come yet
			if n := w.sweep(); n != 0 {
				t.Errorf("gc took %d attachments of a pod in CrashLoopBackOff", n)
			}
			w.wantSame(t, "gc with all containers dead", pod, first)
			w.mustDetach("b1")
			w.wantSame(t, "the last poststop", pod, first)
			if n := w.sweep(); n != 0 {
				t.Errorf("gc took %d attachments of a pod with no container", n)
			}
			a1.Reap()
			b1.Reap()
			w.wantSame(t, "gc with no container", pod, first)

			a2 := w.start(t, "a2", pod, app, "network=web")
			w.wantSame(t, "the next attempt", pod, first)
			if c := w.record().Containers; len(c) != 1 || c[0].ID != "a2" {
				t.Errorf("after the next attempt: %+v", c)
			}
			w.mustDetach("a1") // CRI-O's RemoveContainer of the old attempt
			w.wantSame(t, "a late poststop", pod, first)
			must(t, a2.Kill())
			a2.Reap()
			a3 := w.start(t, "a3", pod, app, "network=web") // a2's poststop has not come
			if c := w.record().Containers; len(c) != 1 || c[0].ID != "a3" {
				t.Errorf("an attempt that failed is still recorded: %+v", c)
			}
			w.mustDetach("a2")
			must(t, a3.Kill())
			a3.Reap()

			gone() // StopPodSandbox
			w.eventuallySwept(t)
			w.wantNothing("web", before)
		})
	}
}

// eventuallySwept waits until gc releases the one attachment: the kernel removes a namespace
// in the background.
func (w *world) eventuallySwept(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "the sandbox's end", func() error {
		if n := w.sweep(); n != 1 {
			return fmt.Errorf("gc took %d attachments", n)
		}
		return nil
	})
}

// eventuallyNumberFree waits until no namespace has the number.
func (w *world) eventuallyNumberFree(t *testing.T, number int) {
	t.Helper()
	testenv.Eventually(t, "the sandbox's end", func() (err error) {
		must(t, w.admin(func(_ context.Context, l *wiring.Lanyard) error {
			lives, nerr := l.Host.Numbered(number)
			if lives {
				err = fmt.Errorf("number %d is in use", number)
			}
			return nerr
		}))
		return err
	})
}

// TestPodsLastPoststop checks that a poststop after the end of the sandbox releases
// everything, as CRI-O's does.
func TestPodsLastPoststop(t *testing.T) {
	w := podNetworks(t, nil)
	before := w.links(w.Host)
	pod, gone := w.sandbox(t)
	c := w.start(t, "a1", pod, crioPod("prod", "web-0", "app"), "network=web")
	number := *w.record().Number
	must(t, c.Kill())
	c.Reap()
	gone()
	w.eventuallyNumberFree(t, number)
	w.mustDetach("a1")
	w.wantNothing("web", before)
}

// TestPodsLeftovers checks that the attachment of a pod that ended without another poststop
// is released by another pod's poststop, and by the next pod of its name. It is not kept
// because another namespace has the number of the pod's.
func TestPodsLeftovers(t *testing.T) {
	for _, again := range []string{"another pod's poststop", "the same pod again"} {
		t.Run(again, func(t *testing.T) {
			w := podNetworks(t, nil)
			old, gone := w.sandbox(t)
			c := w.start(t, "a1", old, containerdPod("prod", "web-0", "app"), "network=web")
			first := w.record()
			must(t, c.Kill())
			c.Reap()
			w.mustDetach("a1")
			gone()
			w.eventuallyNumberFree(t, *first.Number)

			name := "web-0"
			if again == "another pod's poststop" {
				name = "web-1"
			}
			pod, _ := w.sandbox(t)
			c = w.start(t, "b1", pod, inSandbox(containerdPod("prod", name, "app"), "sandbox-again"), "network=web")
			if again == "another pod's poststop" {
				if n := len(w.records()); n != 2 {
					t.Fatalf("there are %d attachments", n)
				}
				must(t, c.Kill())
				w.mustDetach("b1")
			}
			a := w.record()
			if a.Pod.Name != name || a.ID == first.ID {
				t.Errorf("left is %+v", a)
			}
			if *a.Number != *first.Number {
				t.Logf("the new sandbox has number %d, the old had %d: the kernel did not use it again", *a.Number, *first.Number)
			}
		})
	}
}

// TestReleasePod checks that the attachment of a pod whose namespace stays pinned is released
// by name, and not while a container of the pod runs.
func TestReleasePod(t *testing.T) {
	w := podNetworks(t, nil)
	before := w.links(w.Host)
	pod, _ := w.sandbox(t)
	c := w.start(t, "a1", pod, containerdPod("prod", "web-0", "app"), "network=web")
	release := func(name string) (n int, err error) {
		err = w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
			took, err := l.ReleasePod(ctx, name)
			n = len(took)
			return err
		})
		return n, err
	}
	if n, err := release("prod/web-0"); n != 0 || err == nil ||
		!strings.Contains(err.Error(), `in use by container "a1"`) {
		t.Errorf("a pod that runs: %d, %v", n, err)
	}
	must(t, c.Kill())
	w.mustDetach("a1")
	c.Reap()
	must(t, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		if err := l.RemoveNetwork(ctx, "web"); err == nil || !strings.Contains(err.Error(), `in use by pod "prod/web-0"`) {
			t.Errorf("remove the network: %v", err)
		}
		return nil
	}))
	if n, err := release("prod/web-1"); n != 0 || err == nil || !strings.Contains(err.Error(), `no pod "prod/web-1"`) {
		t.Errorf("another pod: %d, %v", n, err)
	}
	if n, err := release("prod/web-0"); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	if links := w.links(pod); fmt.Sprint(links) != "[cluster lo node]" {
		t.Errorf("links of the sandbox: %v", links)
	}
	w.wantNothing("web", before)
}

// TestPodOfHiddenNamespace checks that an attachment is kept in a namespace that has no
// process and is pinned in another mount namespace only, and that its interface can be
// removed.
func TestPodOfHiddenNamespace(t *testing.T) {
	w := podNetworks(t, nil)
	before := w.links(w.Host)
	pod := testenv.NewNamespace(t, "sandbox") // a descriptor of the test holds it
	c := w.start(t, "a1", pod, crioPod("prod", "web-0", "app"), "network=web")
	first := w.record()
	must(t, c.Kill())
	c.Reap()
	if n := w.sweep(); n != 0 {
		t.Errorf("gc took %d attachments", n)
	}
	w.mustDetach("a1")
	w.wantSame(t, "no container and no pin", pod, first)
	must(t, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.ReleasePod(ctx, "sandbox-web-0")
		return err
	}))
	if links := w.links(pod); fmt.Sprint(links) != "[lo]" {
		t.Errorf("links of the sandbox: %v", links)
	}
	w.wantNothing("web", before)
}

// TestPodOutlivesDatabase checks that a pod keeps its attachment if the database is lost: it
// is rebuilt without the pod's name, which the next attempt restores.
func TestPodOutlivesDatabase(t *testing.T) {
	w := podNetworks(t, nil)
	w.wantKept(t, func() { must(t, os.Remove(filepath.Join(wiring.PathsUnder(w.root).Run, "lanyard.db"))) })
}

// wantKept restarts a pod's only container, and checks that the pod keeps its interface
// until its namespace is gone. disturb is called before the first restart.
func (w *world) wantKept(t *testing.T, disturb func()) {
	t.Helper()
	before := w.links(w.Host)
	pod, gone := w.sandbox(t)
	c := w.start(t, "a1", pod, containerdPod("prod", "web-0", "app"), "network=web")
	first := w.record()
	disturb()
	for _, id := range []string{"a1", "a2", "a3"} {
		must(t, c.Kill())
		c.Reap()
		w.mustDetach(id)
		if n := w.sweep(); n != 0 {
			t.Fatalf("after %s gc took %d attachments", id, n)
		}
		w.wantSame(t, "after "+id, pod, first)
		next := map[string]string{"a1": "a2", "a2": "a3", "a3": "a4"}[id]
		c = w.start(t, next, pod, containerdPod("prod", "web-0", "app"), "network=web")
		w.wantSame(t, "with "+next, pod, first)
	}
	must(t, c.Kill())
	c.Reap()
	gone()
	w.eventuallySwept(t)
	w.wantNothing("web", before)
}

// TestPodDeletesInterface checks that the next attempt gets an interface if a container of
// the pod deleted it, also if the attempt starts before poststop, as under CRI-O.
func TestPodDeletesInterface(t *testing.T) {
	w := podNetworks(t, nil)
	pod, _ := w.sandbox(t)
	app := containerdPod("prod", "web-0", "app")
	c := w.start(t, "a1", pod, app, "network=web", "interface=lan0")
	deleteAndExit := func() {
		_, err := pod.Exec("ip", "link", "del", "lan0")
		must(t, err)
		must(t, c.Kill())
		c.Reap()
	}
	deleteAndExit()
	w.mustDetach("a1")
	if recs := w.records(); len(recs) != 0 || w.held("web") != 0 {
		t.Errorf("kept %+v", recs)
	}
	c = w.start(t, "a2", pod, app, "network=web", "interface=lan0")
	deleteAndExit()
	w.start(t, "a3", pod, app, "network=web", "interface=lan0")
	pings(t, pod, "192.168.50.1")
	w.mustDetach("a2")
	if a := w.record(); len(a.Containers) != 1 || a.Containers[0].ID != "a3" || w.held("web") != 1 {
		t.Errorf("after the late poststop: %+v", a)
	}
}

// TestRootsFailures checks that the errors of root's containers are kept for "lanyard why",
// with and without a broker.
func TestRootsFailures(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	for _, w := range []*world{podNetworks(t, nil), b.world} {
		pod := testenv.NewContainer(t)
		if o := w.run(engineState(t, "c1", pod.Pid, crioPod("bank", "p2", "app"), "network=web"),
			[]string{"createRuntime"}); o.status != 1 {
			t.Fatalf("%+v", o)
		}
		w.attach("c2", pod, "netwrok=web")
		w.mustAttach("c3", testenv.NewContainer(t), "network="+map[bool]string{true: "web", false: "closed"}[w == b.world])
		kept, err := broker.Kept(wiring.PathsUnder(w.root).Failures()).All()
		if err != nil || len(kept) != 2 || kept[0].Container != "c1" || kept[1].Container != "c2" ||
			!strings.Contains(kept[0].Error, `pods of the Kubernetes namespace "bank" may not use it`) ||
			!strings.Contains(kept[1].Error, "did you mean") {
			t.Errorf("kept is %+v, %v", kept, err)
		}
	}
}
