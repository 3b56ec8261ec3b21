package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestMultus checks the plugin as a delegate of Multus, with the configuration of docs/engines.md:
// the second interface of a pod, after that of the cluster's network.
func TestMultus(t *testing.T) {
	testenv.ByName(t) // Multus takes a minute to build
	w := newWorld(t, testenv.Config{})
	program, err := filepath.Abs("../../bin/cni/multus")
	must(t, err)
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run make bin/cni/multus", err)
	}
	must(t, os.Symlink(program, filepath.Join(w.plugins, "multus")))
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web50", w.Trunk, func(d *network.Definition) {
		d.Verify, d.KubernetesNamespaces = verify.Strict, []string{"prod"}
	}, "192.168.50.0/24")
	dir := t.TempDir()
	cluster := map[string]any{"cniVersion": "1.0.0", "name": "cluster", "type": "bridge", "bridge": "cni7",
		"isDefaultGateway": true, "ipam": map[string]any{"type": "host-local", "subnet": "10.244.0.0/24",
			"dataDir": filepath.Join(dir, "addresses")}}
	pods := w.list("pods", map[string]any{"type": "multus", "cniDir": filepath.Join(dir, "multus"),
		"binDir": w.plugins, "delegates": []any{cluster, json.RawMessage(documented(t))}})
	s := newSandbox(t)
	rt := s.pod("c1", "prod", "web-0")
	w.mustAdd(pods, rt)
	a := w.Records()[0]
	if a.Interface != "net1" || a.Verdict.Code != verify.OK || a.Pod.Namespace != "prod" || a.Pod.Name != "web-0" {
		t.Errorf("the record is %+v", a)
	}
	if out := s.ip(t, "route", "show", "default"); !strings.Contains(out, "via 10.244.0.1 dev eth0") {
		t.Errorf("the default route is %q", out)
	}
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	must(t, w.check(pods, rt))
	must(t, w.del(pods, rt))
	w.wantNothing("web50")

	// A pod of a namespace that the network does not list gets no interface at all.
	other := newSandbox(t)
	_, err = w.add(pods, other.pod("c2", "test", "web-0"))
	if err == nil || !strings.Contains(err.Error(), `network "web50"`) ||
		!strings.Contains(err.Error(), "--allow-namespace") {
		t.Errorf("the ADD of another namespace's pod: %v", err)
	}
	if links := w.Links(other.Namespace); !slices.Equal(links, []string{"lo"}) {
		t.Errorf("links of the refused pod: %q", links)
	}
	w.wantNothing("web50")
}
