//go:build vm

package admin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestDummy checks that a network without a parent uses a dummy link: its containers
// reach only each other, and the dummy is removed with the network.
func TestDummy(t *testing.T) {
	w := hooklab.New(t, testenv.Config{})
	before := w.Links(w.Host)
	var parent string
	w.Define("lab", "x", func(d *network.Definition) {
		d.Parent, d.Internal = network.DummyParent(d.ID), true
		d.Subnets = []network.Subnet{{Subnet: d.Subnets[0].Subnet}}
		parent = d.Parent
	}, "172.18.0.0/16")
	if links := w.Links(w.Host); !slices.Contains(links, parent) {
		t.Errorf("links are %q, want %q among them", links, parent)
	}
	a, b := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("a", a, "network=lab")
	w.MustAttach("b", b, "network=lab")
	hooklab.Pings(t, b.Namespace, "172.18.0.1")
	if routes := hooklab.RoutesIn(t, a, "-4"); len(routes) != 1 {
		t.Errorf("routes: %q", routes)
	}
	w.DetachAndEnd("a", a)
	w.DetachAndEnd("b", b)
	w.RemoveNetwork("lab")
	if links := w.Links(w.Host); !slices.Equal(links, before) {
		t.Errorf("links are %q, want %q", links, before)
	}
}

// TestShareParent checks that a shared sub-interface that Lanyard created is removed with
// its last network, and that an existing one of any name stays.
func TestShareParent(t *testing.T) {
	share := func(d *network.Definition) { d.ShareParent = true }
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		w := hooklab.New(t, testenv.Config{VLANs: []uint16{50, 60}})
		hooklab.IP(t, w.Host, "link add link eth9 name foo type vlan id 60")
		hooklab.IP(t, w.Host, "link set foo up")
		w.Define("a", "eth9.50", nil, "192.168.50.0/24")
		if err := w.TryDefine("b", "eth9.50", nil, "192.168.51.0/24"); err == nil ||
			!strings.Contains(err.Error(), `parent "eth9.50" carries network "a" already`) {
			t.Errorf("not told to share: %v", err)
		}
		if err := w.TryDefine("b", "eth9.50", share, "192.168.50.128/25"); err == nil ||
			!strings.Contains(err.Error(), "overlaps 192.168.50.0/24") {
			t.Errorf("overlapping: %v", err)
		}
		w.Define("b", "eth9.50", share, "192.168.51.0/24")
		w.Define("c", "foo", nil, "192.168.50.0/24") // another VLAN: another network
		// The same VLAN with another link name.
		hooklab.IP(t, w.Host, "link property add dev foo altname foo60")
		if err := w.TryDefine("d", "foo60", share, "192.168.50.0/25"); err == nil ||
			!strings.Contains(err.Error(), `of network "c"`) {
			t.Errorf("overlapping by another name: %v", err)
		}
		w.RemoveNetwork(order[0])
		if links := w.Links(w.Host); !slices.Contains(links, "eth9.50") {
			t.Errorf("%q was removed, and eth9.50 with it: %q", order[0], links)
		}
		w.RemoveNetwork(order[1])
		w.RemoveNetwork("c")
		if links := w.Links(w.Host); slices.Contains(links, "eth9.50") || !slices.Contains(links, "foo") {
			t.Errorf("links are %q", links)
		}
	}
}

// TestInvalidSibling checks that a parent with a container on it stays when another network on it is
// removed, or fails to be created, while the definition of the container's network is invalid.
func TestInvalidSibling(t *testing.T) {
	w := hooklab.New(t, testenv.Config{VLANs: []uint16{50}})
	w.AddGateway(50, "192.168.50.1/24")
	share := func(d *network.Definition) { d.ShareParent = true }
	w.Define("a", "eth9.50", share, "192.168.51.0/24")
	w.Define("web", "eth9.50", share, "192.168.50.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	file := filepath.Join(w.Paths().Networks, "web.json")
	valid, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte("{"), 0o600))
	w.RemoveNetwork("a")
	if err := w.TryDefine("a", "eth9.50", func(d *network.Definition) { d.MTU = 9000 }, "192.168.51.0/24"); err == nil {
		t.Error("a network with a larger MTU than its parent's was created")
	}
	if err := w.TryDefine("b", "typo0.50", nil, "192.168.52.0/24"); err == nil {
		t.Error("a network on a missing link was created")
	}
	if left, err := filepath.Glob(filepath.Join(w.Paths().Networks, "*")); len(left) != 1 || err != nil {
		t.Errorf("definitions are %q, %v", left, err)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	must(t, os.WriteFile(file, valid, 0o600))
	w.DetachAndEnd("c1", c)
	w.RemoveNetwork("web")
	if links := w.Links(w.Host); slices.Contains(links, "eth9.50") {
		t.Errorf("links are %q", links)
	}
}

// TestGuardedTrunkOfVLAN checks that the guard of a parent is removed with its network, though a
// container is on a VLAN of that link: the guard would drop its frames.
func TestGuardedTrunkOfVLAN(t *testing.T) {
	w := hooklab.New(t, testenv.Config{VLANs: []uint16{50}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("guarded", w.Trunk, func(d *network.Definition) { d.Guard = network.On }, "192.168.51.0/24")
	w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	c, other := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("other", other, "network=guarded")
	w.DetachAndEnd("other", other)
	w.MustAttach("c1", c, "network=web")
	w.RemoveNetwork("guarded")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	w.DetachAndEnd("c1", c)
}

// boot removes what does not survive a reboot: links, records, leases.
func boot(t *testing.T, w *hooklab.Lab, links ...string) {
	t.Helper()
	must(t, os.RemoveAll(w.Paths().Run))
	must(t, os.RemoveAll(w.Paths().BPF))
	for _, l := range links {
		hooklab.IP(t, w.Host, "link del "+l)
	}
}

// TestRestore checks that after a reboot restore, or the first attach, creates Lanyard's
// links again, and reports missing links of the administrator. Leases are gone.
func TestRestore(t *testing.T) {
	w := hooklab.New(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	w.AddGateway(60, "192.168.60.1/24")
	hooklab.IP(t, w.Host, "link add link eth9 name foo type vlan id 60")
	hooklab.IP(t, w.Host, "link set foo up")
	w.Define("ours", "eth9.50", nil, "192.168.50.0/24")
	w.Define("theirs", "foo", nil, "192.168.60.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=ours")
	c.End(t)

	boot(t, w, "eth9.50", "foo")
	rows := w.Restore()
	if len(rows) != 2 || !rows[0].Made || rows[0].Err != nil || rows[0].Blind != "" {
		t.Errorf("restored %+v", rows)
	}
	if err := rows[1].Err; rows[1].Made || !errors.Is(err, link.ErrNoLink) ||
		!strings.Contains(err.Error(), `parent "foo": no such link: it is not managed by Lanyard`) {
		t.Errorf("foo: %+v", rows[1])
	}
	if links := w.Links(w.Host); !slices.Contains(links, "eth9.50") || slices.Contains(links, "foo") {
		t.Errorf("links are %q", links)
	}
	if n := w.Held("ours"); n != 0 {
		t.Errorf("%d leases of the boot before", n)
	}
	w.Refused("a parent of the administrator's", w.Attach("c2", testenv.NewContainer(t), "network=theirs"), 1,
		`parent "foo": no such link`, "not managed by Lanyard")
	c = testenv.NewContainer(t)
	w.MustAttach("c3", c, "network=ours", "verify=strict")
	if addrs := hooklab.AddrsIn(t, c); addrs[0] != "192.168.50.2/24" {
		t.Errorf("addresses %q", addrs)
	}
	// The second call has nothing to do.
	if rows := w.Restore(); rows[0].Made || rows[0].Err != nil {
		t.Errorf("again: %+v", rows)
	}
	// Without restore, the first attach creates the links that it needs.
	w.DetachAndEnd("c3", c)
	boot(t, w, "eth9.50")
	c = testenv.NewContainer(t)
	w.MustAttach("c4", c, "network=ours", "verify=strict")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}

// TestRemoveInUse checks that a network with containers is not removed, also not by
// prune.
func TestRemoveInUse(t *testing.T) {
	w := hooklab.New(t, testenv.Config{VLANs: []uint16{50, 60}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web", "eth9.50", nil, "192.168.50.0/24")
	w.Define("db", "eth9.60", nil, "192.168.60.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, "web") })
	if err == nil || err.Error() != `network "web" is in use by container "c1": remove them first` {
		t.Errorf("%v", err)
	}
	prune := func() (pruned []string) {
		must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
			pruned, err = l.Prune(ctx)
			return err
		}))
		return pruned
	}
	if pruned := prune(); !slices.Equal(pruned, []string{"db"}) {
		t.Errorf("pruned %q", pruned)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	w.DetachAndEnd("c1", c)
	if pruned := prune(); !slices.Equal(pruned, []string{"web"}) {
		t.Errorf("pruned %q", pruned)
	}
	if links := w.Links(w.Host); slices.Contains(links, "eth9.50") || slices.Contains(links, "eth9.60") {
		t.Errorf("links are %q", links)
	}
}

// TestRenamed removes a network after its trunk or its sub-interface was renamed: nothing is left, or
// the error names what is.
func TestRenamed(t *testing.T) {
	for _, x := range []struct {
		name    string
		rename  []string
		refused []string
	}{
		{"trunk", []string{"eth9 name lan9"}, nil},
		{"sub-interface", []string{"eth9.50 name lan50"}, nil},
		{"both", []string{"eth9.50 name lan50", "eth9 name lan9"},
			[]string{`"eth9.50" is gone`, `"lan50"`, "ip link del lan50"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := hooklab.New(t, testenv.Config{VLANs: []uint16{50}})
			w.AddGateway(50, "192.168.50.1/24")
			w.Define("web", "eth9.50", hostAccess, "192.168.50.0/24")
			for _, r := range x.rename {
				link := strings.Fields(r)[0]
				hooklab.IP(t, w.Host, "link set "+link+" down")
				hooklab.IP(t, w.Host, "link set "+r)
				hooklab.IP(t, w.Host, "link set "+strings.Fields(r)[2]+" up")
			}
			remove := func() error {
				return w.Admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, "web") })
			}
			err := remove()
			if x.refused != nil {
				for _, word := range x.refused {
					if err == nil || !strings.Contains(err.Error(), word) {
						t.Errorf("got %v, want %q", err, word)
					}
				}
				hooklab.IP(t, w.Host, "link del lan50")
				err = remove()
			}
			must(t, err)
			if links := w.Links(w.Host); len(links) != 2 { // lo and the trunk
				t.Errorf("left: %q", links)
			}
		})
	}
}
