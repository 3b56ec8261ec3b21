package attach_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// podNetworks defines "web" for pods of the namespace prod, and "closed" for no pods.
func podNetworks(t *testing.T, edit func(*network.Definition)) *world {
	t.Helper()
	return &world{hooklab.NewPodLAN(t, edit)}
}

// podEngines return the annotations of each engine for a container of a pod.
var podEngines = map[string]func(namespace, pod, container string) map[string]string{
	"CRI-O":      hooklab.CRIOPod,
	"containerd": hooklab.ContainerdPod,
}

// podmanPod are the annotations that podman 4.3 writes for a container of a podman pod. From
// 4.4 on it leaves the last three keys out.
var podmanPod = map[string]string{
	"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1",
	"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.TTY": "false",
	"io.kubernetes.cri-o.Created": "2026-11-29T01:00:00Z",
}

// TestPodsOfBothEngines checks that a pod gets only the networks that list its Kubernetes
// namespace, and that its author cannot take another namespace's networks or the default
// route.
func TestPodsOfBothEngines(t *testing.T) {
	for engine, of := range podEngines {
		t.Run(engine, func(t *testing.T) {
			others := podEngines[map[string]string{"CRI-O": "containerd", "containerd": "CRI-O"}[engine]]
			w := podNetworks(t, nil)
			before := w.Links(w.Host)
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
				w.Refused(what, w.Run(hooklab.EngineState(t, "c1", pod.Pid, annotations, "network="+bad.network),
					[]string{"createRuntime"}), 1, bad.word)
			}
			w.WantNothing("web", before)
			want := `networks=[{"name":"web","interface":"lan0","default-route":true}]`
			if o := w.Run(hooklab.EngineState(t, "c1", pod.Pid, of("prod", "web-0", "app"), want),
				[]string{"createRuntime"}); o.Status != 0 {
				t.Fatal(o.Stderr)
			}
			hooklab.Pings(t, pod.Namespace, "192.168.50.1")
			if routes := hooklab.RoutesIn(t, pod, "-4"); !strings.HasPrefix(routes[0], "default dev cluster") ||
				len(routes) != 2 {
				t.Errorf("the author's default-route moved the pod's routes: %q", routes)
			}
			a := w.Record()
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
	before := w.Links(w.Host)
	host := testenv.JoinNamespace(t, w.Host)
	for engine, of := range podEngines {
		state := hooklab.EngineState(t, "c1", host.Pid, of("prod", "web-0", "app"), "network=web")
		w.Refused(engine, w.Run(state, []string{"createRuntime"}), 1, `pod "prod/web-0"`, "hostNetwork is true",
			"remove hostNetwork, or the annotations")
	}
	w.WantNothing("web", before)
}

// TestContainerdPodDefaultRoute checks that a network with --pod-default-route takes the
// default route of a pod of containerd.
func TestContainerdPodDefaultRoute(t *testing.T) {
	w := podNetworks(t, func(d *network.Definition) { d.PodDefaultRoute = true })
	pod := newPod(t)
	state := hooklab.EngineState(t, "c1", pod.Pid, hooklab.ContainerdPod("prod", "web-0", "app"), "network=web",
		"interface=lan0")
	if o := w.Run(state, []string{"createRuntime"}); o.Status != 0 {
		t.Fatal(o.Stderr)
	}
	hooklab.Pings(t, pod.Namespace, "203.0.113.9")
}

// TestPodmanPods checks that a podman pod is not taken for a pod of Kubernetes.
func TestPodmanPods(t *testing.T) {
	w := podNetworks(t, nil)
	infra := testenv.NewContainer(t)
	for i, keys := range []map[string]string{podmanPod,
		{"io.container.manager": "libpod", "io.kubernetes.cri-o.SandboxID": "infra1"}} {
		c := testenv.JoinNamespace(t, infra.Namespace)
		if o := w.Run(hooklab.EngineState(t, fmt.Sprint("c", i), c.Pid, keys, "network=closed"),
			[]string{"createRuntime"}); o.Status != 0 {
			t.Fatalf("%v: %s", keys, o.Stderr)
		}
	}
	a := w.Record()
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
				engine := inSandbox(of("prod", "web-0", container), "sandbox-"+id)
				state := hooklab.EngineState(t, id, pod.Pid, engine, "network=web")
				if o := w.Run(state, []string{"createRuntime"}); o.Status != 0 {
					t.Fatal(o.Stderr)
				}
				if a := fmt.Sprint(w.Record().Addrs); first == "" {
					first = a
				} else if a != first {
					t.Errorf("container %q got %s, the pod had %s", container, a, first)
				}
				pod.End(t)
				w.MustDetach(id)
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
	if o := w.Run(hooklab.EngineState(t, id, c.Pid, engine, annotations...), []string{"createRuntime"}); o.Status != 0 ||
		o.Stderr != "" {
		t.Fatalf("start %s: status %d: %s", id, o.Status, o.Stderr)
	}
	return c
}

// sweep does what "lanyard gc" does, and returns how many attachments it released.
func (w *world) sweep() (n int) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		swept, err := l.Sweep(ctx)
		n = len(swept)
		return err
	}))
	return n
}

// wantSame checks that the pod's interface is unchanged, and works.
func (w *world) wantSame(t *testing.T, when string, pod *testenv.Namespace, first hook.Attachment) {
	t.Helper()
	a := w.Record()
	if a.ID != first.ID || a.State != hook.Attached || fmt.Sprint(a.Addrs) != fmt.Sprint(first.Addrs) ||
		w.Held("web") != 1 {
		t.Fatalf("%s: the pod has %+v, had %+v", when, a, first)
	}
	hooklab.Pings(t, pod, "192.168.50.1")
}

// TestPodOutlivesContainers checks that a pod's attachment exists for as long as the
// sandbox's namespace, also while no container runs: CrashLoopBackOff does not change the
// address.
func TestPodOutlivesContainers(t *testing.T) {
	for engine, of := range podEngines {
		t.Run(engine, func(t *testing.T) {
			w := podNetworks(t, nil)
			before := w.Links(w.Host)
			pod, gone := w.sandbox(t)
			app, log := of("prod", "web-0", "app"), of("prod", "web-0", "log")
			a1, b1 := w.start(t, "a1", pod, app, "network=web"), w.start(t, "b1", pod, log, "network=web")
			first := w.Record()
			if len(first.Containers) != 2 {
				t.Fatalf("containers are %+v", first.Containers)
			}
			must(t, a1.Kill())
			w.MustDetach("a1")
			w.wantSame(t, "one container exited", pod, first)
			must(t, b1.Kill()) // all are dead, and poststop has not come yet
			if n := w.sweep(); n != 0 {
				t.Errorf("gc took %d attachments of a pod in CrashLoopBackOff", n)
			}
			w.wantSame(t, "gc with all containers dead", pod, first)
			w.MustDetach("b1")
			w.wantSame(t, "the last poststop", pod, first)
			if n := w.sweep(); n != 0 {
				t.Errorf("gc took %d attachments of a pod with no container", n)
			}
			a1.Reap()
			b1.Reap()
			w.wantSame(t, "gc with no container", pod, first)

			a2 := w.start(t, "a2", pod, app, "network=web")
			w.wantSame(t, "the next attempt", pod, first)
			if c := w.Record().Containers; len(c) != 1 || c[0].ID != "a2" {
				t.Errorf("after the next attempt: %+v", c)
			}
			w.MustDetach("a1") // CRI-O's RemoveContainer of the old attempt
			w.wantSame(t, "a late poststop", pod, first)
			must(t, a2.Kill())
			a2.Reap()
			a3 := w.start(t, "a3", pod, app, "network=web") // a2's poststop has not come
			if c := w.Record().Containers; len(c) != 1 || c[0].ID != "a3" {
				t.Errorf("an attempt that failed is still recorded: %+v", c)
			}
			w.MustDetach("a2")
			must(t, a3.Kill())
			a3.Reap()

			gone() // StopPodSandbox
			w.eventuallySwept(t)
			w.WantNothing("web", before)
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
		must(t, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
			lives, nerr := l.Host.HasNSID(number)
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
	before := w.Links(w.Host)
	pod, gone := w.sandbox(t)
	c := w.start(t, "a1", pod, hooklab.CRIOPod("prod", "web-0", "app"), "network=web")
	number := *w.Record().Number
	must(t, c.Kill())
	c.Reap()
	gone()
	w.eventuallyNumberFree(t, number)
	w.MustDetach("a1")
	w.WantNothing("web", before)
}

// TestPodsLeftovers checks that the attachment of a pod that ended without another poststop
// is released by another pod's poststop, and by the next pod of its name. It is not kept
// because another namespace has the number of the pod's.
func TestPodsLeftovers(t *testing.T) {
	for _, again := range []string{"another pod's poststop", "the same pod again"} {
		t.Run(again, func(t *testing.T) {
			w := podNetworks(t, nil)
			old, gone := w.sandbox(t)
			c := w.start(t, "a1", old, hooklab.ContainerdPod("prod", "web-0", "app"), "network=web")
			first := w.Record()
			must(t, c.Kill())
			c.Reap()
			w.MustDetach("a1")
			gone()
			w.eventuallyNumberFree(t, *first.Number)

			name := "web-0"
			if again == "another pod's poststop" {
				name = "web-1"
			}
			pod, _ := w.sandbox(t)
			c = w.start(t, "b1", pod, inSandbox(hooklab.ContainerdPod("prod", name, "app"), "sandbox-again"), "network=web")
			if again == "another pod's poststop" {
				if n := len(w.Records()); n != 2 {
					t.Fatalf("there are %d attachments", n)
				}
				must(t, c.Kill())
				w.MustDetach("b1")
			}
			a := w.Record()
			if a.Pod.Name != name || a.ID == first.ID {
				t.Errorf("left is %+v", a)
			}
			if *a.Number != *first.Number {
				t.Logf("the new sandbox has number %d, the old had %d: the kernel did not use it again", *a.Number, *first.Number)
			}
		})
	}
}

// TestReleasePod checks that the attachment of a pod with a namespace that stays pinned is released
// by name, and not while a container of the pod runs.
func TestReleasePod(t *testing.T) {
	w := podNetworks(t, nil)
	before := w.Links(w.Host)
	pod, _ := w.sandbox(t)
	c := w.start(t, "a1", pod, hooklab.ContainerdPod("prod", "web-0", "app"), "network=web")
	release := func(name string) (n int, err error) {
		err = w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
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
	w.MustDetach("a1")
	c.Reap()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
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
	if links := w.Links(pod); fmt.Sprint(links) != "[cluster lo node]" {
		t.Errorf("links of the sandbox: %v", links)
	}
	w.WantNothing("web", before)
}

// TestPodOfHiddenNamespace checks that an attachment is kept in a namespace that has no
// process and is pinned in another mount namespace only, and that its interface can be
// removed; also if the container has changed the MAC, by which it is found otherwise.
func TestPodOfHiddenNamespace(t *testing.T) {
	for what, command := range map[string][]string{
		"as attached": {"true"},
		"another MAC": {"ip", "link", "set", "eth1", "address", "02:00:00:00:00:77"},
	} {
		t.Run(what, func(t *testing.T) { podNetworks(t, nil).wantKeptHidden(t, command...) })
	}
}

// wantKeptHidden checks that the attachment of a pod whose namespace is hidden from the host is
// kept until the pod is released, after its container has run a command and exited.
func (w *world) wantKeptHidden(t *testing.T, command ...string) {
	t.Helper()
	before := w.Links(w.Host)
	pod := testenv.NewNamespace(t, "sandbox") // a descriptor of the test holds it
	c := w.start(t, "a1", pod, hooklab.CRIOPod("prod", "web-0", "app"), "network=web", "interface=eth1")
	_, err := pod.Exec(command[0], command[1:]...)
	must(t, err)
	first := w.Record()
	must(t, c.Kill())
	c.Reap()
	if n := w.sweep(); n != 0 {
		t.Errorf("gc took %d attachments", n)
	}
	w.MustDetach("a1")
	w.wantSame(t, "no container and no pin", pod, first)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.ReleasePod(ctx, "sandbox-web-0")
		return err
	}))
	if links := w.Links(pod); fmt.Sprint(links) != "[lo]" {
		t.Errorf("links of the sandbox: %v", links)
	}
	w.WantNothing("web", before)
}

// TestPodOutlivesDatabase checks that a pod keeps its attachment if the database is lost: it
// is rebuilt without the pod's name, which the next attempt restores.
func TestPodOutlivesDatabase(t *testing.T) {
	w := podNetworks(t, nil)
	w.wantKept(t, func() { must(t, os.Remove(filepath.Join(w.Paths().Run, "lanyard.db"))) })
}

// wantKept restarts a pod's only container, and checks that the pod keeps its interface
// until its namespace is gone. disturb is called before the first restart.
func (w *world) wantKept(t *testing.T, disturb func()) {
	t.Helper()
	before := w.Links(w.Host)
	pod, gone := w.sandbox(t)
	c := w.start(t, "a1", pod, hooklab.ContainerdPod("prod", "web-0", "app"), "network=web")
	first := w.Record()
	disturb()
	for _, id := range []string{"a1", "a2", "a3"} {
		must(t, c.Kill())
		c.Reap()
		w.MustDetach(id)
		if n := w.sweep(); n != 0 {
			t.Fatalf("after %s gc took %d attachments", id, n)
		}
		w.wantSame(t, "after "+id, pod, first)
		next := map[string]string{"a1": "a2", "a2": "a3", "a3": "a4"}[id]
		c = w.start(t, next, pod, hooklab.ContainerdPod("prod", "web-0", "app"), "network=web")
		w.wantSame(t, "with "+next, pod, first)
	}
	must(t, c.Kill())
	c.Reap()
	gone()
	w.eventuallySwept(t)
	w.WantNothing("web", before)
}

// TestPodDeletesInterface checks that the next attempt gets an interface if a container of
// the pod deleted it, also if the attempt starts before poststop, as under CRI-O.
func TestPodDeletesInterface(t *testing.T) {
	w := podNetworks(t, nil)
	pod, _ := w.sandbox(t)
	app := hooklab.ContainerdPod("prod", "web-0", "app")
	c := w.start(t, "a1", pod, app, "network=web", "interface=lan0")
	deleteAndExit := func() {
		_, err := pod.Exec("ip", "link", "del", "lan0")
		must(t, err)
		must(t, c.Kill())
		c.Reap()
	}
	deleteAndExit()
	w.MustDetach("a1")
	if recs := w.Records(); len(recs) != 0 || w.Held("web") != 0 {
		t.Errorf("kept %+v", recs)
	}
	c = w.start(t, "a2", pod, app, "network=web", "interface=lan0")
	deleteAndExit()
	w.start(t, "a3", pod, app, "network=web", "interface=lan0")
	hooklab.Pings(t, pod, "192.168.50.1")
	w.MustDetach("a2")
	if a := w.Record(); len(a.Containers) != 1 || a.Containers[0].ID != "a3" || w.Held("web") != 1 {
		t.Errorf("after the late poststop: %+v", a)
	}
}

// TestPodOutlivesParent checks that a pod keeps its lease if its interface went with its parent, also
// while none of its containers runs. The next attempt gets an interface, if Reattach has not created it.
func TestPodOutlivesParent(t *testing.T) {
	for _, by := range []string{"reattach", "next attempt"} {
		t.Run(by, func(t *testing.T) {
			w := podNetworks(t, nil)
			pod, gone := w.sandbox(t)
			app := hooklab.ContainerdPod("prod", "web-0", "app")
			c := w.start(t, "a1", pod, app, "network=web")
			first := w.Record()
			w.Unplug()
			must(t, c.Kill())
			c.Reap()
			if n := w.sweep(); n != 0 {
				t.Fatalf("gc took %d attachments with all containers dead", n)
			}
			w.MustDetach("a1")
			w.Replug()
			if n := w.sweep(); n != 0 || w.Record().ID != first.ID || w.Held("web") != 1 {
				t.Fatalf("gc took %d attachments after the last poststop", n)
			}
			if by == "reattach" {
				_, err := w.reattach(first)
				must(t, err)
				w.wantSame(t, "after reattach", pod, first)
			}
			c = w.start(t, "a2", pod, app, "network=web")
			if a := w.Record(); (a.ID == first.ID) != (by == "reattach") || w.Held("web") != 1 {
				t.Errorf("the next attempt has %+v", a)
			}
			hooklab.Pings(t, pod, "192.168.50.1")
			w.Unplug()
			must(t, c.Kill())
			c.Reap()
			gone()
			w.eventuallySwept(t)
			if w.Held("web") != 0 {
				t.Errorf("%d leases are left", w.Held("web"))
			}
		})
	}
}
