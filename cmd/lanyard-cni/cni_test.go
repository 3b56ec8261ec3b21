package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestLifecycle checks ADD, CHECK and DEL as runtimes call them, and that the result says what the
// namespace has.
func TestLifecycle(t *testing.T) { bothWays(t, testLifecycle) }

func testLifecycle(t *testing.T, w *world) {
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Verify, d.MTU = verify.Strict, 1400
		d.Routes = []network.Route{{Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.168.50.1")}}
		d.DNS, d.DNSSearch = []netip.Addr{netip.MustParseAddr("192.168.50.1")}, []string{"lan.example"}
	}, "192.168.50.0/24")
	lan, s := w.list("lan", plugin("web")), newSandbox(t)
	r := w.mustAdd(lan, s.conf("c1"))
	a := w.Records()[0]
	if a.Verdict.Code != verify.OK || a.Netns.Inode == 0 || !a.Containers[0].ByPath() {
		t.Errorf("the record is %+v", a)
	}
	if len(r.Interfaces) != 1 || *r.Interfaces[0] != (types100.Interface{
		Name: "eth0", Mac: a.MAC.String(), Mtu: 1400, Sandbox: s.path,
	}) {
		t.Errorf("interfaces are %v", r.Interfaces)
	}
	if len(r.IPs) != 1 || *r.IPs[0].Interface != 0 || r.IPs[0].Address.String() != "192.168.50.2/24" ||
		r.IPs[0].Gateway.String() != "192.168.50.1" {
		t.Errorf("addresses are %v", r.IPs)
	}
	if len(r.Routes) != 2 || r.Routes[0].Dst.String() != "0.0.0.0/0" || r.Routes[0].GW.String() != "192.168.50.1" ||
		r.Routes[1].Dst.String() != "10.0.0.0/8" || fmt.Sprint(r.DNS) != "{[192.168.50.1]  [lan.example] []}" {
		t.Errorf("routes are %v, dns %v", r.Routes, r.DNS)
	}
	for text, args := range map[string][]string{
		"link/ether " + a.MAC.String():  {"link", "show", "eth0"},
		"mtu 1400":                      {"link", "show", "eth0"},
		"inet 192.168.50.2/24":          {"addr", "show", "eth0"},
		"default via 192.168.50.1":      {"route"},
		"10.0.0.0/8 via 192.168.50.1 d": {"route"},
	} {
		if out := s.ip(t, args...); !strings.Contains(out, text) {
			t.Errorf("want %q in %s", text, out)
		}
	}
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	must(t, w.check(lan, s.conf("c1")))
	other := newSandbox(t)
	if r := w.mustAdd(lan, other.conf("c2")); r.IPs[0].Address.String() != "192.168.50.3/24" {
		t.Errorf("the second container has %v", r.IPs[0])
	}
	must(t, w.del(lan, s.conf("c1")))
	if out := s.ip(t, "link"); strings.Contains(out, "eth0") {
		t.Errorf("after DEL: %s", out)
	}
	must(t, w.del(lan, s.conf("c1")))
	// A runtime may remove the namespace first, and then give no path.
	other.unpin()
	other.Release(t)
	gone := other.conf("c2")
	gone.NetNS = ""
	must(t, w.del(lan, gone))
	w.wantNothing("web")
}

// TestCapabilities checks that ips and mac of the runtime are given, or refused.
func TestCapabilities(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	lan, s := w.list("lan", plugin("web")), newSandbox(t)
	with := func(s sandbox, id string, ip, mac string) *libcni.RuntimeConf {
		rt := s.conf(id)
		rt.CapabilityArgs = map[string]any{"ips": []string{ip}, "mac": mac}
		return rt
	}
	rt := with(s, "c1", "192.168.50.99/24", "02:00:00:00:00:99")
	r := w.mustAdd(lan, rt)
	if r.IPs[0].Address.String() != "192.168.50.99/24" || r.Interfaces[0].Mac != "02:00:00:00:00:99" {
		t.Errorf("got %v, %v", r.IPs, r.Interfaces)
	}
	must(t, w.check(lan, rt))
	other := newSandbox(t)
	for what, bad := range map[string]struct {
		ip, mac, word string
		code          uint
	}{
		"taken":            {"192.168.50.99", "02:00:00:00:00:98", "192.168.50.99 is held by", types.ErrInternal},
		"another subnet":   {"192.168.51.9", "02:00:00:00:00:98", "in none of its subnets", types.ErrInternal},
		"not an address":   {"web", "02:00:00:00:00:98", "is not an address such as", types.ErrInvalidNetworkConfig},
		"a multicast MAC":  {"192.168.50.98", "03:00:00:00:00:98", "not a unicast MAC", types.ErrInvalidNetworkConfig},
		"a zero MAC":       {"192.168.50.98", "00:00:00:00:00:00", "not a unicast MAC", types.ErrInvalidNetworkConfig},
		"the broadcast":    {"192.168.50.98", "ff:ff:ff:ff:ff:ff", "not a unicast MAC", types.ErrInvalidNetworkConfig},
		"unspecified":      {"0.0.0.0", "02:00:00:00:00:98", "is not an address such as", types.ErrInvalidNetworkConfig},
		"unspecified IPv6": {"::/64", "02:00:00:00:00:98", "is not an address such as", types.ErrInvalidNetworkConfig},
		"another one's":    {"192.168.50.98", "02:00:00:00:00:99", "02:00:00:00:00:99 on trunk", types.ErrInternal},
		"the gateway's IP": {"192.168.50.1", "02:00:00:00:00:98", "192.168.50.1", types.ErrInternal},
	} {
		_, err := w.add(lan, with(other, "c2", bad.ip, bad.mac))
		refused(t, what, err, bad.code, bad.word)
	}
	must(t, w.del(lan, s.conf("c1")))
	w.wantNothing("web")
}

// TestArguments checks that the interface gets the address and the MAC in CNI_ARGS, where nerdctl
// passes that of --ip, and that a capability takes precedence.
func TestArguments(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24", "fd50::/64")
	lan, s := w.list("lan", plugin("web")), newSandbox(t)
	with := func(s sandbox, id, ip, mac string) *libcni.RuntimeConf {
		rt := s.conf(id)
		rt.Args = [][2]string{{"IgnoreUnknown", "1"}, {"NERDCTL_CNI_DHCP_HOSTNAME", "web"}, {"IP", ip}, {"MAC", mac}}
		return rt
	}
	rt := with(s, "c1", "192.168.50.99,fd50::99", "02:00:00:00:00:99")
	r := w.mustAdd(lan, rt)
	if len(r.IPs) != 2 || r.IPs[0].Address.String() != "192.168.50.99/24" || r.IPs[1].Address.String() != "fd50::99/64" ||
		r.Interfaces[0].Mac != "02:00:00:00:00:99" {
		t.Errorf("got %v, %v", r.IPs, r.Interfaces)
	}
	must(t, w.check(lan, rt))
	other := newSandbox(t)
	for what, bad := range map[string]struct {
		ip, mac, word string
		code          uint
	}{
		"taken":           {"192.168.50.99", "", "192.168.50.99 is held by", types.ErrInternal},
		"not an address":  {"web", "", "CNI_ARGS: IP: \"web\" is not an address such as", types.ErrInvalidNetworkConfig},
		"a short MAC":     {"", "02:00", "CNI_ARGS: MAC: ", types.ErrInvalidNetworkConfig},
		"a zero MAC":      {"", "00:00:00:00:00:00", "not a unicast MAC", types.ErrInvalidNetworkConfig},
		"a multicast MAC": {"", "03:00:00:00:00:98", "not a unicast MAC", types.ErrInvalidNetworkConfig},
	} {
		_, err := w.add(lan, with(other, "c2", bad.ip, bad.mac))
		refused(t, what, err, bad.code, bad.word)
	}
	both := with(other, "c2", "192.168.50.97", "02:00:00:00:00:97")
	both.CapabilityArgs = map[string]any{"ips": []string{"192.168.50.98"}, "mac": "02:00:00:00:00:98"}
	if r := w.mustAdd(lan, both); r.IPs[0].Address.String() != "192.168.50.98/24" ||
		r.Interfaces[0].Mac != "02:00:00:00:00:98" {
		t.Errorf("with capabilities: got %v, %v", r.IPs, r.Interfaces)
	}
	must(t, w.del(lan, s.conf("c1")))
	must(t, w.del(lan, other.conf("c2")))
	w.wantNothing("web")
}

// TestChain checks the plugin with those of the CNI project: before tuning, which has to understand
// the result, and after bridge, as a second interface. The CHECK of bridge takes all addresses of
// the result for its own, so that such a list needs disableCheck.
func TestChain(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	bridge := map[string]any{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": map[string]any{
		"type": "host-local", "dataDir": t.TempDir(), "subnet": "10.244.0.0/24",
		"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
	}}
	tuning := map[string]any{"type": "tuning", "sysctl": map[string]string{"net.ipv4.conf.all.arp_notify": "1"}}
	first, tuned := w.list("lan", plugin("web"), tuning), newSandbox(t)
	first.CNIVersion = "1.0.0" // of Debian's plugins
	w.mustAdd(first, tuned.conf("c0"))
	must(t, w.check(first, tuned.conf("c0")))
	must(t, w.del(first, tuned.conf("c0")))

	lan, s := w.list("pods", bridge, plugin("web", "interface", "lan0")), newSandbox(t)
	lan.CNIVersion, lan.DisableCheck = "1.0.0", true
	r := w.mustAdd(lan, s.conf("c1"))
	var names []string
	for _, i := range r.Interfaces {
		if i.Sandbox != "" {
			names = append(names, i.Name)
		}
	}
	if !slices.Equal(names, []string{"eth0", "lan0"}) || len(r.IPs) != 2 ||
		r.IPs[1].Address.String() != "192.168.50.3/24" ||
		r.Interfaces[*r.IPs[1].Interface].Name != "lan0" {
		t.Errorf("the result is %v", r)
	}
	if out := s.ip(t, "route", "show", "default"); strings.TrimSpace(out) != "default via 10.244.0.1 dev eth0" {
		t.Errorf("default routes are %q", out)
	}
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	must(t, w.del(lan, s.conf("c1")))
	w.wantNothing("web")
}

// TestCheck checks that CHECK finds what "lanyard verify" finds, and a container without attachment.
func TestCheck(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	gw := w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	lan, s := w.list("lan", plugin("web")), newSandbox(t)
	w.mustAdd(lan, s.conf("c1"))
	s.ip(t, "addr", "del", "192.168.50.2/24", "dev", "eth0")
	refused(t, "an address is missing", w.check(lan, s.conf("c1")), errVerdict, "does not have address 192.168.50.2/24")
	s.ip(t, "addr", "add", "192.168.50.2/24", "dev", "eth0")
	s.ip(t, "route", "add", "default", "via", "192.168.50.1")
	must(t, w.check(lan, s.conf("c1")))
	gw.SetPort(false)
	refused(t, "the gateway is silent", w.check(lan, s.conf("c1")), errVerdict, "192.168.50.1")
	gw.SetPort(true)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "c1:eth0:lan") }))
	refused(t, "no attachment", w.check(lan, s.conf("c1")), types.ErrUnknownContainer, `container "c1"`, "add it again")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Attach(ctx, hook.Request{Container: "c1:eth0:lan", Netns: s.path, Wants: []hook.Want{{
			Network: "web", Interface: "eth0", Addrs: []netip.Addr{netip.MustParseAddr("192.168.50.9")},
		}}})
		return err
	}))
	refused(t, "another address than the runtime's", w.check(lan, s.conf("c1")), types.ErrInternal, "192.168.50.9/24")
	must(t, w.del(lan, s.conf("c1")))
}

// TestRefusedADD checks that a fatal verdict is a CNI error and leaves nothing.
func TestRefusedADD(t *testing.T) { bothWays(t, testRefusedADD) }

func testRefusedADD(t *testing.T, w *world) {
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24")
	lan, s := w.list("lan", plugin("web")), newSandbox(t)
	_, err := w.add(lan, s.conf("c1"))
	refused(t, "no gateway", err, errVerdict, `lanyard: network "web": `, "192.168.50.1")
	if out := s.ip(t, "link"); strings.Contains(out, "eth0") {
		t.Errorf("the interface is left: %s", out)
	}
	must(t, w.del(lan, s.conf("c1"))) // as a runtime does after a failed ADD
	w.wantNothing("web")
}

// TestGC checks that GC releases the attachments of its own CNI network that are not valid, and no
// others.
func TestGC(t *testing.T) { bothWays(t, testGC) }

func testGC(t *testing.T, w *world) {
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	lan, other := w.list("lan", plugin("web")), w.list("other-lan", plugin("web"))
	var all []sandbox
	for _, id := range []string{"c1", "c2", "c3"} {
		s := newSandbox(t)
		w.mustAdd(lan, s.conf(id))
		all = append(all, s)
	}
	another := newSandbox(t)
	w.mustAdd(other, another.conf("c4"))
	c := testenv.NewContainer(t)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Attach(ctx, hook.Request{Container: "c5", Pid: c.Pid, Wants: []hook.Want{{Network: "web"}}})
		return err
	}))
	all[2].unpin()
	all[2].Release(t) // valid for the runtime, but the namespace is gone
	must(t, w.gc(lan, types.GCAttachment{ContainerID: "c2", IfName: "eth0"},
		types.GCAttachment{ContainerID: "c3", IfName: "eth0"}))
	if got := w.holders(); got != "c2:eth0:lan c4:eth0:other-lan c5" {
		t.Errorf("attached are %s", got)
	}
	if out := all[0].ip(t, "link"); strings.Contains(out, "eth0") {
		t.Errorf("c1 has an interface: %s", out)
	}
	hooklab.Pings(t, all[1].Namespace, "192.168.50.1")
	must(t, w.gc(lan))
	must(t, w.gc(other))
	if got := w.holders(); got != "c5" {
		t.Errorf("attached are %s", got)
	}
}

// TestGCWithoutList checks that a GC that does not say which attachments are in use releases none of them, and that
// it still releases what is left of a namespace that is gone.
func TestGCWithoutList(t *testing.T) { bothWays(t, testGCWithoutList) }

func testGCWithoutList(t *testing.T, w *world) {
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	used, gone := newSandbox(t), newSandbox(t)
	w.mustAdd(w.list("lan", plugin("web")), used.conf("c1"))
	w.mustAdd(w.list("lan", plugin("web")), gone.conf("c2"))
	gone.unpin()
	gone.Release(t)
	// As "cnitool gc" does. libcni itself deletes what is in its cache: so the cache is another runtime's.
	gc := func(more ...any) error {
		t.Helper()
		cni := libcni.NewCNIConfigWithCacheDir([]string{w.plugins}, t.TempDir(), nil)
		return w.run(func(ctx context.Context) error {
			return cni.GCNetworkList(ctx, w.list("lan", plugin("web", more...)), nil)
		})
	}
	c1 := map[string]string{"containerID": "c1", "ifname": "eth0"}
	for _, bad := range []struct {
		word string
		keys []any
	}{
		{`"cni.dev/valid-attachments" is missing`, nil},
		{"cni.dev/attachments[1]: containerID and ifname", []any{"cni.dev/attachments",
			[]any{c1, map[string]string{"containerID": "c1"}}}},
	} {
		testenv.Eventually(t, "the sweep of c2", func() error {
			refused(t, bad.word, gc(bad.keys...), types.ErrInvalidNetworkConfig, bad.word)
			if got := w.holders(); got != "c1:eth0:lan" {
				return fmt.Errorf("attached are %q", got)
			}
			return nil
		})
		hooklab.Pings(t, used.Namespace, "192.168.50.1")
	}
	must(t, gc("cni.dev/attachments", []any{c1}))
	if got := w.holders(); got != "c1:eth0:lan" {
		t.Errorf("with the former key, attached are %s", got)
	}
	must(t, gc("cni.dev/valid-attachments", nil, "cni.dev/attachments", []any{c1}))
	w.wantNothing("web")
}

// TestStatus checks that STATUS fails where an ADD would.
func TestStatus(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.ShareParent = true }, "192.168.50.0/30")
	lan, s := w.list("lan", plugin("web")), newSandbox(t)
	must(t, w.status(lan))
	w.mustAdd(lan, s.conf("c1"))
	refused(t, "no free address", w.status(lan), errNotAvailable, `network "web"`, "no address is free")
	must(t, w.del(lan, s.conf("c1")))
	w.Define("shared", w.Trunk, func(d *network.Definition) {
		d.Leases, d.ShareParent = network.LeasesEtcd, true
	}, "192.168.51.0/24")
	const start = `its leases are in etcd: only the service reaches it: run "systemctl enable --now lanyard.socket"`
	etcd := w.list("lan", plugin("shared"))
	refused(t, "leases in etcd", w.status(etcd), errNotAvailable, `network "shared"`, start)
	_, err := w.add(etcd, s.conf("c1"))
	refused(t, "leases in etcd", err, types.ErrInternal, `network "shared"`, start)
	must(t, w.del(etcd, s.conf("c1")))
	must(t, w.gc(etcd))
	w.wantNothing("web")
	_, err = w.Host.Exec("ip", "link", "set", w.Trunk, "down")
	must(t, err)
	refused(t, "parent down", w.status(lan), errNotAvailable, "ip link set eth9 up")
	refused(t, "no network", w.status(w.list("lan", plugin("nowhere"))), errNotAvailable, `"nowhere"`)
}

// TestStatusWithRoom checks that STATUS succeeds where an ADD finds an address although none is free: in quarantine, of
// a container that is gone, or with a requested address outside of the range.
func TestStatusWithRoom(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Quarantine = network.Duration(time.Hour)
		d.Subnets[0].Ranges = []netip.Prefix{netip.MustParsePrefix("192.168.50.8/32")}
	}, "192.168.50.0/24")
	lan := w.list("lan", plugin("web"))
	step := func(what string, s sandbox, id string) {
		t.Helper()
		if err := w.status(lan); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if r := w.mustAdd(lan, s.conf(id)); r.IPs[0].Address.String() != "192.168.50.8/24" {
			t.Errorf("%s: got %v", what, r.IPs)
		}
		refused(t, "a full range after "+what, w.status(lan), errNotAvailable, "no address is free")
	}
	s, outside, last := newSandbox(t), newSandbox(t), newSandbox(t)
	requests := outside.conf("c1")
	requests.CapabilityArgs = map[string]any{"ips": []string{"192.168.50.20"}}
	w.mustAdd(lan, requests)
	step("an address outside of the range", s, "c2")
	must(t, w.del(lan, s.conf("c2")))
	step("an address in quarantine", s, "c3")
	s.ip(t, "link", "del", "eth0")
	step("a container without its interface", last, "c4")
}

// TestPods checks that a pod gets only the networks that list its namespace, that the default route
// stays the cluster's, and that the attachment lives as long as the sandbox, whatever hooks of its
// containers do.
func TestPods(t *testing.T) { bothWays(t, testPods) }

func testPods(t *testing.T, w *world) {
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.KubernetesNamespaces = []string{"prod"} }, "192.168.50.0/24")
	lan, s := w.list("lan", plugin("web", "default-route", true)), newSandbox(t)
	_, err := w.add(lan, s.pod("sandbox1", "bank", "web-0"))
	refused(t, "another namespace", err, types.ErrInternal, `pods of the Kubernetes namespace "bank" may not use it`)
	nameless := s.pod("sandbox1", "prod", "web-0")
	nameless.Args = [][2]string{{"K8S_POD_NAME", "web-0"}}
	_, err = w.add(lan, nameless)
	refused(t, "no namespace", err, types.ErrInvalidEnvironmentVariables, "K8S_POD_NAMESPACE")

	w.mustAdd(lan, s.pod("sandbox1", "prod", "web-0"))
	if out := s.ip(t, "route", "show", "default"); out != "" {
		t.Errorf("the pod has the default route %q", out)
	}
	a := w.Records()[0]
	if a.Pod != (hook.Pod{Sandbox: "sandbox1", Namespace: "prod", Name: "web-0"}) {
		t.Errorf("the record is of pod %+v", a.Pod)
	}
	c := testenv.JoinNamespace(t, s.Namespace)
	local := func(f func(context.Context, *wiring.Lanyard) error) { t.Helper(); must(t, w.Admin(f)) }
	local(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Attach(ctx, hook.Request{Container: "app", Pid: c.Pid, Pod: a.Pod, Wants: []hook.Want{{Network: "web"}}})
		return err
	})
	if got := w.holders(); got != "app sandbox1:eth0:lan" {
		t.Errorf("the attachment is of %s", got)
	}
	must(t, c.Kill())
	local(func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "app") })
	local(func(ctx context.Context, l *wiring.Lanyard) error { _, err := l.Sweep(ctx); return err })
	if got := w.holders(); got != "sandbox1:eth0:lan" {
		t.Errorf("after the container has exited: %s", got)
	}
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	if err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.ReleasePod(ctx, "prod/web-0")
		return err
	}); err == nil || !strings.Contains(err.Error(), "stop the pod first") {
		t.Errorf("gc --pod: %v", err)
	}
	must(t, w.del(lan, s.pod("sandbox1", "prod", "web-0")))
	w.wantNothing("web")
}

// TestSweep checks that a sweep keeps the attachment of a namespace without a process, and releases
// it when the namespace is gone or its interface was deleted.
func TestSweep(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	lan := w.list("lan", plugin("web"))
	s, bare := newSandbox(t), newSandbox(t)
	w.mustAdd(lan, s.conf("c1"))
	w.mustAdd(lan, bare.conf("c2"))
	if n := w.sweep(); n != 0 {
		t.Errorf("swept %d attachments in use", n)
	}
	s.unpin()
	s.Release(t)
	bare.ip(t, "link", "del", "eth0")
	w.mustAdd(lan, bare.conf("c3")) // does not join the attachment without an interface
	hooklab.Pings(t, bare.Namespace, "192.168.50.1")
	testenv.Eventually(t, "the sweep of c1", func() error {
		w.sweep()
		if got := w.holders(); got != "c3:eth0:lan" {
			return fmt.Errorf("attached are %s", got)
		}
		return nil
	})
	must(t, w.del(lan, bare.conf("c3")))
	w.wantNothing("web")
}

// TestPodRecreated checks that a pod that was deleted by force keeps its interface until DEL, also if
// a pod of its name has another sandbox by then: its containers may still be ending.
func TestPodRecreated(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.KubernetesNamespaces = []string{"prod"} }, "192.168.50.0/24")
	lan := w.list("lan", plugin("web"))
	old, again := newSandbox(t), newSandbox(t)
	w.mustAdd(lan, old.pod("sandbox1", "prod", "web-0"))
	testenv.JoinNamespace(t, old.Namespace)
	w.mustAdd(lan, again.pod("sandbox2", "prod", "web-0"))
	if got := w.holders(); got != "sandbox1:eth0:lan sandbox2:eth0:lan" {
		t.Errorf("attached are %s", got)
	}
	for _, s := range []sandbox{old, again} {
		hooklab.Pings(t, s.Namespace, "192.168.50.1")
	}
	must(t, w.del(lan, old.pod("sandbox1", "prod", "web-0")))
	must(t, w.del(lan, again.pod("sandbox2", "prod", "web-0")))
	w.wantNothing("web")
}

// TestParentGone checks that an interface that went with its parent is reported, and can be created
// again, and that the container has its address until DEL.
func TestParentGone(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	lan := w.list("lan", plugin("web"))
	s, other := newSandbox(t), newSandbox(t)
	w.mustAdd(lan, s.conf("c1"))
	a := w.Records()[0]
	w.Unplug()
	w.Replug()
	w.sweep()
	refused(t, "the parent was removed", w.check(lan, s.conf("c1")), errVerdict, "interface-gone", "lanyard reattach")
	if r := w.mustAdd(lan, other.conf("c2")); r.IPs[0].Address.String() != "192.168.50.3/24" {
		t.Errorf("the next container has %v", r.IPs[0])
	}
	w.reattach(a)
	w.sweep()
	must(t, w.check(lan, s.conf("c1")))
	hooklab.Pings(t, s.Namespace, "192.168.50.1")
	w.Unplug()
	must(t, w.del(lan, s.conf("c1")))
	must(t, w.del(lan, other.conf("c2")))
	w.wantNothing("web")
}

// TestConfigurations checks the errors for wrong configurations and environments.
func TestConfigurations(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	s := newSandbox(t)
	for what, bad := range map[string]struct {
		plugin map[string]any
		code   uint
		word   string
	}{
		"no network": {plugin(""), types.ErrInvalidNetworkConfig, `key "network" is missing`},
		"unknown":    {plugin("nowhere"), types.ErrInvalidNetworkConfig, `"nowhere"`},
		"a path":     {plugin("../web"), types.ErrInvalidNetworkConfig, "../web"},
		"typo":       {plugin("web", "verfy", "strict"), types.ErrInvalidNetworkConfig, `did you mean "verify"?`},
		"ipam": {plugin("web", "ipam", map[string]any{"type": "host-local"}),
			types.ErrInvalidNetworkConfig, `"ipam"`},
		"verify":        {plugin("web", "verify", "hard"), types.ErrInvalidNetworkConfig, "hard"},
		"mtu":           {plugin("web", "mtu", 12), types.ErrInvalidNetworkConfig, "12 is not an MTU"},
		"wrong type":    {plugin("web", "mtu", "big"), types.ErrDecodingFailure, "mtu"},
		"its interface": {plugin("web", "interface", "a/b"), types.ErrInvalidNetworkConfig, "a/b"},
	} {
		_, err := w.add(w.list("lan", bad.plugin), s.conf("c1"))
		refused(t, what, err, bad.code, bad.word)
	}
	lan := w.list("lan", plugin("web"))
	nowhere := s.conf("c1")
	nowhere.NetNS = "/run/netns/nowhere"
	_, err := w.add(lan, nowhere)
	refused(t, "no namespace", err, types.ErrInternal, `"/run/netns/nowhere"`, "no such file")
	hosts := s.conf("c1")
	hosts.NetNS = w.Host.Path()
	_, err = w.add(lan, hosts)
	refused(t, "the host's namespace", err, types.ErrInvalidNetNS, "the host's own namespace")
	w.wantNothing("web")
}
