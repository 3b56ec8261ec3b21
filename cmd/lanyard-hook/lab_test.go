package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// asHook makes the test binary run the hook, so that tests run it as a process.
const asHook = "LANYARD_TEST_AS_HOOK"

func TestMain(m *testing.M) {
	if os.Getenv(asHook) != "" {
		main()
	}
	if root := os.Getenv(asBroker); root != "" {
		serveForTest(root)
	}
	os.Exit(m.Run())
}

// world is a lab, with Lanyard's files in a directory of its own.
type world struct {
	*testenv.Lab
	tb   testing.TB
	root string
}

func newWorld(tb testing.TB, c testenv.Config) *world {
	tb.Helper()
	w := &world{Lab: testenv.NewLab(tb, c), tb: tb, root: filepath.Join(tb.TempDir(), "root")}
	tb.Cleanup(func() {
		if err := os.RemoveAll(wiring.PathsUnder(w.root).BPF); err != nil {
			tb.Errorf("remove pins: %v", err)
		}
	})
	return w
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
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

// define creates a network on a parent, with the first address of each subnet as gateway.
func (w *world) define(name, parent string, edit func(*network.Definition), subnets ...string) {
	w.tb.Helper()
	must(w.tb, w.tryDefine(name, parent, edit, subnets...))
}

func (w *world) tryDefine(name, parent string, edit func(*network.Definition), subnets ...string) error {
	w.tb.Helper()
	def := &network.Definition{
		Name: name, ID: network.NewID(), Driver: network.DriverMacvlan, Parent: parent, Mode: network.ModeBridge,
	}
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		def.Subnets = append(def.Subnets, network.Subnet{Subnet: p, Gateway: p.Addr().Next()})
	}
	if edit != nil {
		edit(def)
	}
	must(w.tb, def.Validate())
	return w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		blind, err := l.CreateNetwork(ctx, def)
		if blind != "" {
			err = errors.Join(err, errors.New(blind))
		}
		return err
	})
}

// evidence returns what the trunk program has seen of an attachment until now.
func (w *world) evidence(a hook.Attachment) (e verify.Evidence) {
	w.tb.Helper()
	must(w.tb, w.admin(func(_ context.Context, l *wiring.Lanyard) (err error) {
		e, err = l.Evidence(a)
		return err
	}))
	return e
}

// removeNetwork removes a network, and checks that nothing of it is left.
func (w *world) removeNetwork(name string) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, name) }))
}

func (w *world) restore() (rows []admin.Restored) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		rows, err = l.Restore(ctx)
		return err
	}))
	return rows
}

func (w *world) records() (recs []hook.Attachment) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		recs, err = l.Attachments(ctx)
		return err
	}))
	return recs
}

// record returns the only attachment.
func (w *world) record() hook.Attachment {
	w.tb.Helper()
	recs := w.records()
	if len(recs) != 1 {
		w.tb.Fatalf("there are %d attachments, want one: %+v", len(recs), recs)
	}
	return recs[0]
}

// held counts the leases in use on a network.
func (w *world) held(name string) (n int) {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		def, err := network.Load(l.Networks, name)
		if err != nil {
			return err
		}
		usage, err := l.Usage(ctx, def)
		for _, u := range usage {
			n += u.Counts.Held
		}
		return err
	}))
	return n
}

// watched counts the endpoints that the trunks' programs watch.
func (w *world) watched() (n int) {
	w.tb.Helper()
	must(w.tb, w.admin(func(_ context.Context, l *wiring.Lanyard) error {
		all, err := l.Datapath.Endpoints()
		n = len(all)
		return err
	}))
	return n
}

// state returns what a runtime writes to the hook's stdin. Annotations are without their
// prefix.
func state(id string, pid int, annotations ...string) []byte {
	s := specs.State{Version: specs.Version, ID: id, Status: specs.StateCreating, Pid: pid,
		Annotations: map[string]string{}}
	for _, a := range annotations {
		k, v, _ := strings.Cut(a, "=")
		s.Annotations["io.lanyard."+k] = v
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a map of strings
	}
	return b
}

// outcome is how a hook process ended.
type outcome struct {
	status int // -1 if a signal ended it
	stderr string
}

// command returns a hook process in the host's namespace, with additional environment.
func (w *world) command(stdin []byte, args []string, env ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", w.root}, args...)...)
	cmd.Env = append(append(os.Environ(), asHook+"=1"), env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	return cmd, &stderr
}

// run runs the hook to its end.
func (w *world) run(stdin []byte, args []string, env ...string) outcome {
	w.tb.Helper()
	cmd, stderr := w.command(stdin, args, env...)
	err := w.Host.Run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.tb.Fatalf("run the hook: %v", err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stderr.String()}
}

// attach runs the hook as a runtime does at createRuntime.
func (w *world) attach(id string, c *testenv.Container, annotations ...string) outcome {
	w.tb.Helper()
	return w.run(state(id, c.Pid, annotations...), []string{"createRuntime"})
}

func (w *world) mustAttach(id string, c *testenv.Container, annotations ...string) {
	w.tb.Helper()
	if o := w.attach(id, c, annotations...); o.status != 0 || o.stderr != "" {
		w.tb.Fatalf("attach %s: status %d: %s", id, o.status, o.stderr)
	}
}

// mustDetach runs the hook as a runtime does at poststop, without a pid.
func (w *world) mustDetach(id string) {
	w.tb.Helper()
	if o := w.run(state(id, 0, "network=web"), []string{"poststop"}); o.status != 0 || o.stderr != "" {
		w.tb.Fatalf("detach %s: status %d: %s", id, o.status, o.stderr)
	}
}

// detachAndEnd ends a container as an engine does: it kills the process, runs the hook, and closes
// the namespace.
func (w *world) detachAndEnd(t *testing.T, id string, c *testenv.Container) {
	t.Helper()
	must(t, c.Kill())
	w.mustDetach(id)
	c.End(t)
}

// refused checks that the hook failed with one line that contains the text.
func (w *world) refused(what string, o outcome, status int, words ...string) {
	w.tb.Helper()
	if o.status != status || !strings.HasPrefix(o.stderr, "lanyard: ") || strings.Count(o.stderr, "\n") != 1 {
		w.tb.Errorf("%s: status %d, said %q; want status %d and one line", what, o.status, o.stderr, status)
		return
	}
	for _, word := range words {
		if !strings.Contains(o.stderr, word) {
			w.tb.Errorf("%s: said %q, want %q in it", what, o.stderr, word)
		}
	}
}

// wantNothing checks that nothing of any attach is left: no record, no lease of the
// network, no endpoint, and no new link on the host.
func (w *world) wantNothing(name string, links []string) {
	w.tb.Helper()
	if recs := w.records(); len(recs) > 0 {
		w.tb.Errorf("records are left: %+v", recs)
	}
	if n := w.held(name); n > 0 {
		w.tb.Errorf("%d leases are left", n)
	}
	if n := w.watched(); n > 0 {
		w.tb.Errorf("%d endpoints are left", n)
	}
	if now := w.links(w.Host); !slices.Equal(now, links) {
		w.tb.Errorf("links of the host: %q, want %q", now, links)
	}
}

// links lists the names of a namespace's links, sorted.
func (w *world) links(n *testenv.Namespace) (names []string) {
	w.tb.Helper()
	list, err := n.Netlink().LinkList()
	must(w.tb, err)
	for _, l := range list {
		names = append(names, l.Attrs().Name)
	}
	slices.Sort(names)
	return names
}

// pings checks that an address answers a ping from inside.
func pings(tb testing.TB, n *testenv.Namespace, addr string) {
	tb.Helper()
	if out, err := n.Exec("ping", "-n", "-c1", "-W5", addr); err != nil {
		tb.Errorf("ping %s from %s: %v: %s", addr, n.Name, err, out)
	}
}
