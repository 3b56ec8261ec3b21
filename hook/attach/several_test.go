package attach_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// twoLANs are two networks with a router each; both routers know of a third
// net behind them, with one host in it: 203.0.113.9 and 2001:db8:f::9 .
func twoLANs(t *testing.T, edit func(*network.Definition)) *world {
	t.Helper()
	w := newWorld(t, testenv.Config{})
	for _, prefixes := range [][]string{
		{"192.168.50.1/24", "fd50::1/64"},
		{"192.168.60.1/24", "203.0.113.9/32"},
	} {
		w.AddGateway(0, prefixes...)
	}
	w.Define("web", w.Trunk, edit, "192.168.50.0/24", "fd50::/64")
	w.Define("db", w.Trunk, func(d *network.Definition) {
		d.ShareParent = true
		if edit != nil {
			edit(d)
		}
	}, "192.168.60.0/24")
	return w
}

// TestSeveralNetworks attaches one container to several networks, in both notations. The
// first network with a gateway gets the default route of its family, unless another one
// asks for it.
func TestSeveralNetworks(t *testing.T) {
	for _, test := range []struct {
		networks string
		default4 string // interface
		default6 string
	}{
		{"web,db", "eth0", "eth0"},
		{"db,web", "eth0", "eth1"},
		{"web@lan0,db@lan1", "lan0", "lan0"},
		{`[{"name":"web","interface":"eth5"},{"name":"db","default-route":true}]`, "eth0", ""},
		{`[{"name":"web","default-route":false},{"name":"db","ips":["192.168.60.9"]}]`, "eth1", ""},
		{`[{"name":"web","default-route":false},{"name":"db","default-route":false}]`, "", ""},
	} {
		t.Run(test.networks, func(t *testing.T) {
			w := twoLANs(t, nil)
			before := w.Links(w.Host)
			c := testenv.NewContainer(t)
			w.MustAttach("c1", c, "networks="+test.networks, "verify=strict")
			for family, want := range map[string]string{"-4": test.default4, "-6": test.default6} {
				var dev string
				for _, r := range hooklab.RoutesIn(t, c, family) {
					if f := strings.Fields(r); f[0] == "default" {
						dev = f[slices.Index(f, "dev")+1]
					}
				}
				if dev != want {
					t.Errorf("the default route of %s is on %q, want %q: %q", family, dev, want, hooklab.RoutesIn(t, c, family))
				}
			}
			if recs := w.Records(); len(recs) != 2 || len(recs[0].Addrs)+len(recs[1].Addrs) != 3 {
				t.Errorf("records: %+v", recs)
			}
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
			hooklab.Pings(t, c.Namespace, "192.168.60.1")
			// A second attach adds nothing.
			w.MustAttach("c1", c, "networks="+test.networks)
			if recs := w.Records(); len(recs) != 2 {
				t.Errorf("%d records after the second time", len(recs))
			}
			w.DetachAndEnd("c1", c)
			w.WantNothing("web", before)
			w.WantNothing("db", before)
		})
	}
}

// TestAllOrNothing checks that the first network is undone if the second one is refused.
func TestSeveralNetworksAllOrNothing(t *testing.T) {
	w := twoLANs(t, nil)
	before := w.Links(w.Host)
	c := testenv.NewContainer(t)
	w.Refused("a network that is not there", w.Attach("c1", c, "networks=web,nope"), 1, `network "nope": not defined`)
	w.WantNothing("web", before)
	if links := w.Links(c.Namespace); !slices.Equal(links, []string{"lo"}) {
		t.Errorf("links in the container: %q", links)
	}
}

// TestSourceRouting checks that a reply to a host behind the second interface's router
// leaves by the second interface, and not by the default route.
func TestSourceRouting(t *testing.T) {
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprint("source routing ", on), func(t *testing.T) {
			w := twoLANs(t, func(d *network.Definition) { d.SourceRouting = on })
			c := testenv.NewContainer(t)
			w.MustAttach("c1", c, "networks=web,db@eth1")
			for from, want := range map[string]string{"192.168.50.2": "eth0", "192.168.60.2": "eth1", "fd50::2": "eth0"} {
				to := "203.0.113.9"
				if strings.Contains(from, ":") {
					to = "2001:db8:f::9"
				}
				out, err := c.Exec("ip", "route", "get", to, "from", from)
				must(t, err)
				if !on {
					want = "eth0"
				}
				if !strings.Contains(out, "dev "+want+" ") {
					t.Errorf("source routing %v: from %s it goes %s, want %s", on, from, out, want)
				}
			}
			if on {
				// Nothing of it remains after the interface, in a namespace that stays.
				pod := testenv.NewContainer(t)
				first := testenv.JoinNamespace(t, pod.Namespace)
				w.MustAttach("p1", first, "network=db")
				must(t, first.Kill())
				w.MustDetach("p1")
				first.Reap()
				rules, err := pod.Exec("ip", "rule")
				must(t, err)
				if strings.Contains(rules, "30000:") {
					t.Errorf("rules are left: %s", rules)
				}
			}
		})
	}
}

// podState is what CRI-O writes for a container of a pod.
func podState(t *testing.T, id string, pid int, namespace string, annotations ...string) []byte {
	t.Helper()
	var s specs.State
	must(t, json.Unmarshal(hooklab.State(id, pid, annotations...), &s))
	s.Annotations["io.kubernetes.cri-o.SandboxID"] = "sandbox1"
	if namespace != "" {
		s.Annotations["io.kubernetes.pod.namespace"] = namespace
		s.Annotations["io.kubernetes.pod.name"] = "shop-1"
		s.Annotations["io.kubernetes.container.name"] = "app"
	}
	b, err := json.Marshal(s)
	must(t, err)
	return b
}

// TestPods checks that a pod gets only networks that list its Kubernetes namespace, since
// the pod's author sets the annotations, and that the default route stays the cluster's.
func TestPods(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "203.0.113.9/32")
	for name, edit := range map[string]func(*network.Definition){
		"closed": nil,
		"shops":  func(d *network.Definition) { d.KubernetesNamespaces = []string{"shop"} },
		"any":    func(d *network.Definition) { d.KubernetesNamespaces = []string{"*"} },
	} {
		w.Define(name, w.Trunk, func(d *network.Definition) {
			d.ShareParent = true
			if edit != nil {
				edit(d)
			}
		}, map[string]string{"closed": "192.168.51.0/24", "shops": "192.168.50.0/24", "any": "192.168.52.0/24"}[name])
	}
	pod := newPod(t)
	create := []string{"createRuntime"}
	w.Refused("a network that lists none", w.Run(podState(t, "a", pod.Pid, "shop", "network=closed"), create), 1,
		`pods of the Kubernetes namespace "shop" may not use it`)
	w.Refused("another namespace", w.Run(podState(t, "a", pod.Pid, "bank", "network=shops"), create), 1,
		`pods of the Kubernetes namespace "bank" may not use it`)
	w.Refused("no namespace", w.Run(podState(t, "a", pod.Pid, "", "network=shops"), create), 1,
		"pods that are in no Kubernetes namespace")
	for id, network := range map[string]string{"a": "shops", "b": "any"} {
		if o := w.Run(podState(t, id, pod.Pid, "shop", "network="+network, "interface="+network), create); o.Status != 0 {
			t.Fatalf("%s: %s", network, o.Stderr)
		}
	}
	hooklab.Pings(t, pod.Namespace, "192.168.50.1")
	if routes := hooklab.RoutesIn(t, pod, "-4"); !strings.HasPrefix(routes[0], "default dev cluster") || len(routes) != 3 {
		t.Errorf("the pod's routes are %q", routes)
	}
}

// newPod returns a namespace with the default route of a cluster.
func newPod(t *testing.T) *testenv.Container {
	t.Helper()
	pod := testenv.NewContainer(t)
	mustGiveDefault(t, pod)
	return pod
}

// mustGiveDefault gives a namespace an interface "cluster" that has the default route.
func mustGiveDefault(t *testing.T, c *testenv.Container, options ...string) {
	t.Helper()
	for _, args := range [][]string{
		{"link", "add", "cluster", "type", "veth", "peer", "name", "node"},
		{"link", "set", "cluster", "up"}, {"link", "set", "node", "up"},
		append([]string{"route", "add", "default", "dev", "cluster"}, options...),
	} {
		_, err := c.Exec("ip", args...)
		must(t, err)
	}
}

// TestForeignDefaultRoute checks that a default route of another network manager stays in
// place. If a network asks for the default route, the other one is effective again after
// the detach. In the other family Lanyard's is the only one.
func TestForeignDefaultRoute(t *testing.T) {
	const left = "[{0.0.0.0/0 invalid IP cluster}]"
	for _, test := range []struct {
		what, want, option string
		goes4, goes6       string // interface of the default route
		via, others        string
	}{
		{"unset", ``, "", "cluster", "eth0", "[fd50::1]", left},
		{"unset, with another metric than ours", ``, "metric 100", "cluster", "eth0", "[fd50::1]", left},
		{"true", `,"default-route":true`, "", "eth0", "eth0", "[192.168.50.1 fd50::1]", "[]"},
		{"false", `,"default-route":false`, "", "cluster", "", "[]", "[]"},
	} {
		t.Run(test.what, func(t *testing.T) {
			w := newWorld(t, testenv.Config{})
			w.AddGateway(0, "192.168.50.1/24", "fd50::1/64", "203.0.113.9/32")
			w.Define("web", w.Trunk, nil, "192.168.50.0/24", "fd50::/64")
			host := testenv.NewContainer(t)
			mustGiveDefault(t, host, strings.Fields(test.option)...)
			before := append(hooklab.RoutesIn(t, host, "-4"), hooklab.RoutesIn(t, host, "-6")...)
			c := testenv.JoinNamespace(t, host.Namespace)
			networks := `networks=[{"name":"web"` + test.want + `}]`
			w.MustAttach("c1", c, networks, "verify=strict")
			w.MustAttach("c1", c, networks) // the second attach adds nothing
			for to, want := range map[string]string{"203.0.113.9": test.goes4, "198.51.100.9": test.goes4,
				"2001:db8::9": test.goes6, "9000::9": test.goes6} {
				out, err := c.Exec("ip", "route", "get", to)
				if want == "" && err == nil || want != "" && !strings.Contains(out, "dev "+want+" ") {
					t.Errorf("%s goes %q, %v, want %q", to, out, err, want)
				}
			}
			if a := w.Record(); fmt.Sprint(a.Defaults) != test.via || fmt.Sprint(a.Others) != test.others {
				t.Errorf("recorded: by %v, left to %v, want %s and %s", a.Defaults, a.Others, test.via, test.others)
			}
			must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
				v, err := l.Verify(ctx, w.Record())
				if len(v) != 2 || v[0].Code != verify.OK || v[1].Code != verify.OK {
					t.Errorf("asked again: %+v", v)
				}
				return err
			}))
			must(t, c.Kill())
			w.MustDetach("c1")
			c.Reap()
			after := append(hooklab.RoutesIn(t, host, "-4"), hooklab.RoutesIn(t, host, "-6")...)
			if !slices.Equal(after, before) {
				t.Errorf("routes were %q and are %q", before, after)
			}
			w.MustAttach("c2", testenv.JoinNamespace(t, host.Namespace), networks)
			must(t, os.Remove(filepath.Join(w.Paths().Run, "lanyard.db")))
			if a := w.Record(); fmt.Sprint(a.Defaults) != test.via {
				t.Errorf("adopted: by %v, want %s", a.Defaults, test.via)
			}
		})
	}
}

// TestPodDefaultRoute checks that a network with --pod-default-route gets the default
// route of pods, and that the cluster's is effective again after "gc --pod".
func TestPodDefaultRoute(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "203.0.113.9/32")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.KubernetesNamespaces, d.PodDefaultRoute = []string{"shop"}, true
	}, "192.168.50.0/24")
	pod := newPod(t)
	c := testenv.JoinNamespace(t, pod.Namespace)
	if o := w.Run(podState(t, "a", c.Pid, "shop", "network=web", "interface=lan0"),
		[]string{"createRuntime"}); o.Status != 0 {
		t.Fatal(o.Stderr)
	}
	hooklab.Pings(t, pod.Namespace, "203.0.113.9")
	must(t, c.Kill())
	w.MustDetach("a")
	c.Reap()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.ReleasePod(ctx, "shop/shop-1")
		return err
	}))
	if routes := hooklab.RoutesIn(t, pod, "-4"); len(routes) != 1 || !strings.HasPrefix(routes[0], "default dev cluster") {
		t.Errorf("the pod's routes are %q", routes)
	}
}
