package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/lanyard-net/lanyard/cmd/internal/serve"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestMain makes the test binary the plugin, which libcni runs by the name lanyard-cni.
func TestMain(m *testing.M) {
	hooklab.PluginMain(m, main, func(ctx context.Context, p wiring.Paths, log *slog.Logger) error {
		return serve.Run(ctx, serve.Options{Paths: p, Log: log, Sweep: time.Hour})
	})
}

// debianPlugins is where Debian installs the plugins of the CNI project.
const debianPlugins = "/usr/lib/cni"

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Error codes of package cni.
const (
	errNotAvailable uint = 50
	errVerdict      uint = 100
)

// world is a lab, and a runtime with libcni.
type world struct {
	*hooklab.Lab
	cni     *libcni.CNIConfig
	plugins string // directory of lanyard-cni
}

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	dir := tb.TempDir()
	self, err := os.Executable()
	must(tb, err)
	must(tb, os.Symlink(self, filepath.Join(dir, "lanyard-cni")))
	cni := libcni.NewCNIConfigWithCacheDir([]string{dir, debianPlugins}, filepath.Join(dir, "cache"), nil)
	return &world{hooklab.New(tb, c), cni, dir}
}

// bothWays runs a test without and with the service.
func bothWays(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("alone", func(t *testing.T) { f(t, newWorld(t, testenv.Config{})) })
	t.Run("service", func(t *testing.T) {
		w := newWorld(t, testenv.Config{})
		service := w.StartService()
		f(t, w)
		service.Stop()
		if !strings.Contains(service.Logged(), "plugin=cni command=") {
			t.Errorf("the service has carried out no command: %s", service.Logged())
		}
	})
}

// run runs f as a runtime: in the host's namespace, with a plugin that uses the world's files.
func (w *world) run(f func(context.Context) error) error {
	w.TB.Helper()
	w.TB.(*testing.T).Setenv("LANYARD_ROOT", w.Root)
	return w.Host.Do(func() error { return f(context.Background()) })
}

// list returns the configuration of a CNI network.
func (w *world) list(name string, plugins ...map[string]any) *libcni.NetworkConfigList {
	w.TB.Helper()
	text, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": name, "plugins": plugins})
	must(w.TB, err)
	list, err := libcni.NetworkConfFromBytes(text)
	must(w.TB, err)
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
	w.TB.Helper()
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
	w.TB.Helper()
	r, err := w.add(l, rt)
	must(w.TB, err)
	return r
}

func (w *world) del(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	w.TB.Helper()
	return w.run(func(ctx context.Context) error { return w.cni.DelNetworkList(ctx, l, rt) })
}

func (w *world) check(l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	w.TB.Helper()
	return w.run(func(ctx context.Context) error { return w.cni.CheckNetworkList(ctx, l, rt) })
}

func (w *world) gc(l *libcni.NetworkConfigList, valid ...types.GCAttachment) error {
	w.TB.Helper()
	return w.run(func(ctx context.Context) error {
		return w.cni.GCNetworkList(ctx, l, &libcni.GCArgs{ValidAttachments: valid})
	})
}

func (w *world) status(l *libcni.NetworkConfigList) error {
	w.TB.Helper()
	return w.run(func(ctx context.Context) error { return w.cni.GetStatusNetworkList(ctx, l) })
}

// documented returns the first configuration of docs/engines.md with "cniVersion".
func documented(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n    \{\n      "cniVersion".*?\n    \}\n`).Find(text)
	if found == nil {
		t.Fatal("docs/engines.md has no configuration")
	}
	return found
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

// holders returns the sorted ids of all containers on record.
func (w *world) holders() string {
	w.TB.Helper()
	var ids []string
	for _, a := range w.Records() {
		for _, c := range a.Containers {
			ids = append(ids, c.ID)
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
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

// reattach does what "lanyard reattach" does for one attachment.
func (w *world) reattach(a hook.Attachment) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, a.ID)
		return err
	}))
}

// wantNothing checks that no attachment, lease or endpoint is left.
func (w *world) wantNothing(name string) {
	w.TB.Helper()
	w.WantNothing(name, w.Links(w.Host))
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
