//go:build vm

package attach_test

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestPodOutlivesContainersIPvlan checks that a pod keeps an ipvlan, also in a hidden namespace, and
// that the ipvlan of another pod is not taken for it. All ipvlans have the MAC of the parent, and a
// later namespace may have the same number, so only the addresses and the namespace identify the pod.
func TestPodOutlivesContainersIPvlan(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	err := w.TryDefine("web", w.Trunk, func(d *network.Definition) {
		d.Driver, d.Mode, d.KubernetesNamespaces = network.DriverIPvlan, network.ModeL2, []string{"prod"}
	}, "192.168.50.0/24")
	if err == nil || !strings.Contains(err.Error(), "driver ipvlan sends with the MAC of parent") {
		t.Fatal(err) // the only note: its trunk is not watched
	}
	w.wantKept(t, func() {})
	w.wantKeptHidden(t, "true")
	// Another namespace gets the number of the first pod's.
	old, gone := w.sandbox(t)
	c := w.start(t, "b1", old, hooklab.ContainerdPod("prod", "web-1", "app"), "network=web")
	number := *w.Record().Number
	must(t, c.Kill())
	c.Reap()
	w.MustDetach("b1")
	gone()
	w.eventuallyNumberFree(t, number)
	pod, _ := w.sandbox(t)
	w.start(t, "c1", pod, hooklab.ContainerdPod("prod", "web-2", "app"), "network=web")
	if n := w.sweep(); n != 1 {
		t.Errorf("gc took %d attachments", n)
	}
	if a := w.Record(); a.Pod.Name != "web-2" {
		t.Errorf("left is %+v", a)
	}
}
