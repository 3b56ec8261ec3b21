package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// The test binary is the plugin where LANYARD_ROOT is set: libcni runs it by the name lanyard-cni.
func TestMain(m *testing.M) {
	if os.Getenv("LANYARD_ROOT") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// debianPlugins is where Debian installs the plugins of the CNI project.
const debianPlugins = "/usr/lib/cni"

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// world is a lab, with Lanyard's files in a directory of its own, and a runtime with libcni.
type world struct {
	*testenv.Lab
	tb   testing.TB
	root string
	cni  *libcni.CNIConfig
}

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	dir := tb.TempDir()
	w := &world{Lab: testenv.NewLab(tb, c), tb: tb, root: filepath.Join(dir, "root")}
	bin := filepath.Join(dir, "bin")
	must(tb, os.Mkdir(bin, 0o700))
	self, err := os.Executable()
	must(tb, err)
	must(tb, os.Symlink(self, filepath.Join(bin, "lanyard-cni")))
	w.cni = libcni.NewCNIConfigWithCacheDir([]string{bin, debianPlugins}, filepath.Join(dir, "cache"), nil)
	tb.Cleanup(func() {
		if err := os.RemoveAll(wiring.PathsUnder(w.root).BPF); err != nil {
			tb.Errorf("remove pins: %v", err)
		}
	})
	return w
}

// admin runs f in the host's namespace, as an administrator's command does.
func (w *world) admin(f func(ctx context.Context, l *wiring.Lanyard) error) error {
	return w.Host.Do(func() error {
		l, err := wiring.Open(wiring.PathsUnder(w.root))
		if err != nil {
			return err
		}
		return errors.Join(f(context.Background(), l), l.Close())
	})
}

// define creates a network on a parent, with the first address of the subnet as gateway.
func (w *world) define(name, parent, subnet string, edit func(*network.Definition)) {
	w.tb.Helper()
	p := netip.MustParsePrefix(subnet)
	def := &network.Definition{
		Name: name, ID: network.NewID(), Driver: network.DriverMacvlan, Parent: parent, Mode: network.ModeBridge,
		Subnets: []network.Subnet{{Subnet: p, Gateway: p.Addr().Next()}},
	}
	if edit != nil {
		edit(def)
	}
	must(w.tb, def.Validate())
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.CreateNetwork(ctx, def)
		return err
	}))
}

// run runs f as a runtime: in the host's namespace, with a plugin that uses the world's files.
func (w *world) run(f func(context.Context) error) error {
	w.tb.Helper()
	w.tb.(*testing.T).Setenv("LANYARD_ROOT", w.root)
	return w.Host.Do(func() error { return f(context.Background()) })
}

// list returns the configuration of a CNI network.
func (w *world) list(name string, plugins ...map[string]any) *libcni.NetworkConfigList {
	w.tb.Helper()
	text, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": name, "plugins": plugins})
	must(w.tb, err)
	list, err := libcni.NetworkConfFromBytes(text)
	must(w.tb, err)
	return list
}

// plugin returns the configuration of lanyard-cni, with more keys.
func plugin(network string, more ...any) map[string]any {
	conf := map[string]any{"type": "lanyard-cni", "network": network,
		"capabilities": map[string]bool{"ips": true, "mac": true}}
	for i := 0; i < len(more); i += 2 {
		conf[more[i].(string)] = more[i+1]
	}
	return conf
}

func (w *world) add(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (r *types100.Result, err error) {
	w.tb.Helper()
	err = w.run(func(ctx context.Context) error {
		got, err := w.cni.AddNetworkList(ctx, l, rt)
		if err != nil {
			return err
		}
		r, err = types100.NewResultFromResult(got)
		return err
	})
	return r, err
}

func (w *world) mustAdd(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *types100.Result {
	w.tb.Helper()
	r, err := w.add(l, rt)
	must(w.tb, err)
	return r
}

func (w *world) del(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	w.tb.Helper()
	return w.run(func(ctx context.Context) error { return w.cni.DelNetworkList(ctx, l, rt) })
}

func (w *world) check(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	w.tb.Helper()
	return w.run(func(ctx context.Context) error { return w.cni.CheckNetworkList(ctx, l, rt) })
}

func (w *world) gc(l *libcni.NetworkConfigList, valid ...types.GCAttachment) error {
	w.tb.Helper()
	return w.run(func(ctx context.Context) error {
		return w.cni.GCNetworkList(ctx, l, &libcni.GCArgs{ValidAttachments: valid})
	})
}

func (w *world) status(l *libcni.NetworkConfigList) error {
	w.tb.Helper()
	return w.run(func(ctx context.Context) error { return w.cni.GetStatusNetworkList(ctx, l) })
}

// sandbox is a network namespace that a runtime has made, without a process.
type sandbox struct {
	*testenv.Namespace
	path  string
	unpin func()
}

func newSandbox(t *testing.T) sandbox {
	t.Helper()
	n := testenv.NewNamespace(t, "sandbox")
	path, unpin := n.PinAt(t)
	return sandbox{n, path, unpin}
}

// conf returns the runtime's side of a call for a container with the interface eth0.
func (s sandbox) conf(id string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: s.path, IfName: "eth0"}
}

// pod returns conf with the arguments of a Kubernetes runtime.
func (s sandbox) pod(id, namespace, name string) *libcni.RuntimeConf {
	rt := s.conf(id)
	rt.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", name},
		{"K8S_POD_INFRA_CONTAINER_ID", id}, {"K8S_POD_UID", "uid-" + name}}
	return rt
}

// ip runs ip(8) in the namespace.
func (s sandbox) ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Exec("ip", args...)
	must(t, err)
	return out
}

func pings(tb testing.TB, n *testenv.Namespace, addr string) {
	tb.Helper()
	if out, err := n.Exec("ping", "-n", "-c1", "-W5", addr); err != nil {
		tb.Errorf("ping %s: %v: %s", addr, err, out)
	}
}

func (w *world) records() (recs []hook.Attachment) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		recs, err = l.Attachments(ctx)
		return err
	}))
	return recs
}

// holders returns the sorted ids of all containers on record.
func (w *world) holders() string {
	w.tb.Helper()
	var ids []string
	for _, a := range w.records() {
		for _, c := range a.Containers {
			ids = append(ids, c.ID)
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// wantNothing checks that no attachment, lease or endpoint is left.
func (w *world) wantNothing(networks ...string) {
	w.tb.Helper()
	if recs := w.records(); len(recs) > 0 {
		w.tb.Errorf("records are left: %+v", recs)
	}
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		for _, name := range networks {
			def, err := network.Load(l.Networks, name)
			if err != nil {
				return err
			}
			all, err := l.Summary(ctx, def)
			if err != nil || all[0].Counts.Held > 0 {
				return fmt.Errorf("leases of %s: %+v, %w", name, all, err)
			}
		}
		ends, err := l.Datapath.Endpoints()
		if len(ends) > 0 {
			w.tb.Errorf("endpoints are left: %v", ends)
		}
		return err
	}))
}

// refused checks that an error is an error object of CNI, with the code and one line that contains
// the words.
func refused(t *testing.T, what string, err error, code uint, words ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: %v is no error of CNI", what, err)
		return
	}
	if e.Code != code || strings.Contains(e.Msg+e.Details, "\n") {
		t.Errorf("%s: code %d, want %d: %q", what, e.Code, code, e.Msg)
	}
	for _, word := range words {
		if !strings.Contains(e.Msg, word) {
			t.Errorf("%s: %q, want %q in it", what, e.Msg, word)
		}
	}
}
