package admin_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestInterruptedCreate interrupts the creation of several networks during the last: none of them is left.
func TestInterruptedCreate(t *testing.T) {
	w := hooklab.New(t, testenv.Config{})
	_, err := w.Host.Exec("ip", "link", "add", "eth8", "up", "type", "veth", "peer", "name", "peer8")
	must(t, err)
	before := w.Links(w.Host)
	last := filepath.Join(w.Paths().Networks, "last.json")
	err = w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		ctx, interrupt := context.WithCancel(ctx)
		go func() {
			defer interrupt()
			for range 30_000 {
				if _, err := os.Stat(last); err == nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		var defs []*network.Definition
		for i, name := range []string{"first", "last"} {
			defs = append(defs, &network.Definition{
				Name: name, ID: network.NewID(), Driver: network.DriverMacvlan, Mode: network.ModeBridge,
				Parent: []string{"eth8", w.Trunk}[i], HostAccess: true,
				Subnets: []network.Subnet{{Subnet: netip.MustParsePrefix([]string{"10.8.0.0/24", "10.9.0.0/24"}[i])}},
			})
		}
		// It asks the LAN for so long that the interrupt comes before its end.
		defs[1].ConflictWindow = network.Duration(20 * time.Second)
		_, err := l.CreateNetworks(ctx, defs)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the create ended with %v", err)
	}
	files, err := os.ReadDir(w.Paths().Networks)
	must(t, err)
	for _, f := range files {
		if filepath.Ext(f.Name()) == ".json" {
			t.Errorf("%s is left", f.Name())
		}
	}
	if links := w.Links(w.Host); !slices.Equal(links, before) {
		t.Errorf("links of the host: %q, before: %q", links, before)
	}
}

// TestGuardEndsWithItsNetwork has two networks on a guarded parent, as definitions edited by hand can: the guard
// ends with the network that needs it, while the other network has a container.
func TestGuardEndsWithItsNetwork(t *testing.T) {
	w, _ := hooklab.NewLAN(t, func(d *network.Definition) { d.Guard = network.On })
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	edited := *w.Definition("web")
	edited.Guard, edited.ShareParent = "", true
	must(t, edited.Save(w.Paths().Networks))
	w.Define("db", w.Trunk, func(d *network.Definition) { d.ShareParent = true }, "192.168.60.0/24")
	edited.Guard, edited.ShareParent = network.On, false
	must(t, edited.Save(w.Paths().Networks))
	other := testenv.NewContainer(t)
	w.MustAttach("c2", other, "network=db", "ip=192.168.60.9")
	w.DetachAndEnd("c1", c)
	w.RemoveNetwork("web")
	must(t, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		parent, err := w.Host.Netlink().LinkByName(w.Trunk)
		if err != nil {
			return err
		}
		guarded, err := l.Guards.ParentGuarded(parent.Attrs().Index)
		if guarded {
			t.Error("the parent is guarded after the network")
		}
		return err
	}))
}
