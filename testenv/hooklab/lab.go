// Package hooklab is a lab (testenv.Lab) with Lanyard on its hosts. Tests of the packages below
// hook attach and detach in it as a runtime does: each hook is a process.
package hooklab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/admin"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// Lab is one host of a lab, with Lanyard's files below Root.
type Lab struct {
	*testenv.Lab
	TB   testing.TB
	Root string
}

// New makes a lab with one host.
func New(tb testing.TB, c testenv.Config) *Lab {
	tb.Helper()
	w := &Lab{Lab: testenv.NewLab(tb, c), TB: tb, Root: filepath.Join(tb.TempDir(), "root")}
	w.removePins()
	return w
}

// NewLAN makes a lab with a network without tags, "web", for both families, and its gateway. edit
// may change the network's definition first; nil changes nothing.
func NewLAN(tb testing.TB, edit func(*network.Definition)) (*Lab, *testenv.Station) {
	tb.Helper()
	w := New(tb, testenv.Config{})
	gw := w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	w.Define("web", w.Trunk, edit, "192.168.50.0/24", "fd50::/64")
	return w, gw
}

// NewPodLAN makes a lab with the networks "web", for pods of the Kubernetes namespace prod, and
// "closed", for no pods.
func NewPodLAN(tb testing.TB, edit func(*network.Definition)) *Lab {
	tb.Helper()
	w := New(tb, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "192.168.51.1/24", "203.0.113.9/32")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.ShareParent, d.KubernetesNamespaces = true, []string{"prod"}
		if edit != nil {
			edit(d)
		}
	}, "192.168.50.0/24")
	w.Define("closed", w.Trunk, func(d *network.Definition) { d.ShareParent = true }, "192.168.51.0/24")
	return w
}

// MACFromAddress makes a network derive MACs from addresses, for tests that know the MAC.
func MACFromAddress(d *network.Definition) { d.MACFrom = network.MACFromAddress }

// AddHost adds a host to the LAN. Without an identity it is a clone of w's host: both derive the
// same MACs from a container's name.
func (w *Lab) AddHost(identity string) *Lab {
	w.TB.Helper()
	other := &Lab{Lab: w.Lab.AddHost(), TB: w.TB, Root: filepath.Join(w.TB.TempDir(), "root")}
	other.removePins()
	must(w.TB, os.MkdirAll(other.Root, 0o755))
	if identity != "" {
		must(w.TB, os.WriteFile(other.Paths().HostID, []byte(identity+"\n"), 0o600))
	}
	return other
}

// removePins removes the host's pins at the end of the test.
func (w *Lab) removePins() {
	w.TB.Cleanup(func() {
		if err := os.RemoveAll(w.Paths().BPF); err != nil {
			w.TB.Errorf("remove pins: %v", err)
		}
	})
}

// On returns the lab for a subtest.
func (w *Lab) On(tb testing.TB) *Lab {
	sub := *w
	sub.TB = tb
	return &sub
}

// Paths are the places of the host's files.
func (w *Lab) Paths() wiring.Paths { return wiring.PathsUnder(w.Root) }

// Admin runs f in the host's namespace, as an administrator's command does.
func (w *Lab) Admin(f func(ctx context.Context, l *wiring.Lanyard) error) error {
	return w.Host.Do(func() error {
		l, err := wiring.Open(w.Paths())
		if err != nil {
			return err
		}
		return errors.Join(f(context.Background(), l), l.Close())
	})
}

// Define creates a network on a parent, with the first address of each subnet as gateway.
func (w *Lab) Define(name, parent string, edit func(*network.Definition), subnets ...string) {
	w.TB.Helper()
	must(w.TB, w.TryDefine(name, parent, edit, subnets...))
}

// TryDefine is Define for networks that may be refused. A network that Lanyard cannot watch is an
// error, too.
func (w *Lab) TryDefine(name, parent string, edit func(*network.Definition), subnets ...string) error {
	w.TB.Helper()
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
	must(w.TB, def.Validate())
	return w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		blind, err := l.CreateNetwork(ctx, def)
		if blind != "" {
			err = errors.Join(err, errors.New(blind))
		}
		return err
	})
}

// Definition returns the stored definition of a network.
func (w *Lab) Definition(name string) *network.Definition {
	w.TB.Helper()
	d, err := network.Load(w.Paths().Networks, name)
	must(w.TB, err)
	return d
}

// RemoveNetwork removes a network.
func (w *Lab) RemoveNetwork(name string) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, name) }))
}

// Restore does what "lanyard restore" does after a boot.
func (w *Lab) Restore() (rows []admin.Restored) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		rows, err = l.Restore(ctx)
		return err
	}))
	return rows
}

// LoseDatabase removes the database, and with pins the programs and maps of the trunks.
func (w *Lab) LoseDatabase(pins bool) {
	w.TB.Helper()
	if err := os.Remove(filepath.Join(w.Paths().Run, "lanyard.db")); err != nil && !os.IsNotExist(err) {
		w.TB.Fatal(err)
	}
	if pins {
		must(w.TB, os.RemoveAll(w.Paths().BPF))
	}
}

// Records returns all attachments of the host.
func (w *Lab) Records() (recs []hook.Attachment) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		recs, err = l.Attachments(ctx)
		return err
	}))
	return recs
}

// Record returns the only attachment.
func (w *Lab) Record() hook.Attachment {
	w.TB.Helper()
	recs := w.Records()
	if len(recs) != 1 {
		w.TB.Fatalf("there are %d attachments, want one: %+v", len(recs), recs)
	}
	return recs[0]
}

// Evidence returns what the trunk program has seen of an attachment until now.
func (w *Lab) Evidence(a hook.Attachment) (e verify.Evidence) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(_ context.Context, l *wiring.Lanyard) (err error) {
		e, err = l.Evidence(a)
		return err
	}))
	return e
}

// Held counts the leases in use on a network.
func (w *Lab) Held(name string) (n int) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
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

// Watched counts the endpoints that the trunks' programs watch.
func (w *Lab) Watched() (n int) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		all, err := l.Datapath.Endpoints()
		n = len(all)
		return err
	}))
	return n
}

// Links lists the names of a namespace's links, sorted.
func (w *Lab) Links(n *testenv.Namespace) (names []string) {
	w.TB.Helper()
	list, err := n.Netlink().LinkList()
	must(w.TB, err)
	for _, l := range list {
		names = append(names, l.Attrs().Name)
	}
	slices.Sort(names)
	return names
}

// WantNothing checks that nothing of any attach is left: no record, no lease of the network, no
// endpoint, and no other link on the host than links.
func (w *Lab) WantNothing(name string, links []string) {
	w.TB.Helper()
	if recs := w.Records(); len(recs) > 0 {
		w.TB.Errorf("records are left: %+v", recs)
	}
	if n := w.Held(name); n > 0 {
		w.TB.Errorf("%d leases are left", n)
	}
	if n := w.Watched(); n > 0 {
		w.TB.Errorf("%d endpoints are left", n)
	}
	if now := w.Links(w.Host); !slices.Equal(now, links) {
		w.TB.Errorf("links of the host: %q, want %q", now, links)
	}
}

// Pings checks that an address answers a ping from inside.
func Pings(tb testing.TB, n *testenv.Namespace, addr string) {
	tb.Helper()
	if out, err := n.Exec("ping", "-n", "-c1", "-W5", addr); err != nil {
		tb.Errorf("ping %s from %s: %v: %s", addr, n.Name, err, out)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
