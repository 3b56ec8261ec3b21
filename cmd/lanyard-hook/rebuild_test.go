package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// lose removes the database, and with pins the programs and maps of the trunks.
func (w *world) lose(pins bool) {
	w.tb.Helper()
	paths := wiring.PathsUnder(w.root)
	if err := os.Remove(filepath.Join(paths.Run, "lanyard.db")); err != nil && !os.IsNotExist(err) {
		w.tb.Fatal(err)
	}
	if pins {
		must(w.tb, os.RemoveAll(paths.BPF))
	}
}

// byHand creates a link of a kind on the trunk, in a container, with an address of the network.
func (w *world) byHand(c *testenv.Container, kind, addr string) {
	w.tb.Helper()
	_, err := w.Host.Exec("ip", "link", "add", "hand", "link", w.Trunk, "type", kind)
	must(w.tb, err)
	_, err = w.Host.Exec("ip", "link", "set", "hand", "netns", c.Path())
	must(w.tb, err)
	w.change(c, "link set hand up\naddr add "+addr+"/24 dev hand")
}

// TestRebuildLeavesForeignLinks checks that a new database adopts no macvlan that somebody else
// created on the parent of a network, as after a boot.
func TestRebuildLeavesForeignLinks(t *testing.T) { rebuildBesideForeign(t, network.DriverMacvlan) }

// rebuildBesideForeign loses the database of a network while a container has a link of the network's
// kind that somebody else created.
func rebuildBesideForeign(t *testing.T, kind string) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	err := w.tryDefine("web", w.Trunk, func(d *network.Definition) { ofKind(d, kind) }, "192.168.50.0/24")
	if err != nil && !strings.Contains(err.Error(), "driver ipvlan sends with the MAC of parent") {
		t.Fatal(err)
	}
	w.lose(false)
	w.byHand(testenv.NewContainer(t), kind, "192.168.50.99")
	if recs := w.records(); len(recs) != 0 || w.held("web") != 0 {
		t.Errorf("adopted %+v", recs)
	}
	ours := testenv.NewContainer(t)
	w.mustAttach("c1", ours, "network=web", "ip=192.168.50.9")
	for _, pins := range []bool{false, true} {
		w.lose(pins)
		if got := addresses(w.record()); !slices.Equal(got, []string{"192.168.50.9"}) {
			t.Errorf("after a loss, pins too: %v: found %v", pins, got)
		}
	}
}

// ofKind sets the driver of a definition.
func ofKind(d *network.Definition, kind string) {
	if kind == network.DriverIPvlan {
		d.Driver, d.Mode = network.DriverIPvlan, network.ModeL2
	}
}

// TestRebuildWithoutMark checks that an interface without the mark, as those of earlier builds, is
// restored if the trunk's maps know it, and that of another namespace with its MAC is not.
func TestRebuildWithoutMark(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	w.mustAttach("c1", c, "network=web")
	_, err := c.Exec("ip", "link", "set", "eth0", "alias", "")
	must(t, err)
	w.lose(false)
	if w.record().MAC.IsZero() || w.held("web") != 2 {
		t.Errorf("%d leases", w.held("web"))
	}
	w.lose(true)
	if recs := w.records(); len(recs) != 0 {
		t.Errorf("adopted %+v", recs)
	}
}

// TestAttackRebuildMark checks that a user without privilege gets no lease for a macvlan beside its
// own, with the mark, when the database is lost.
func TestAttackRebuildMark(t *testing.T) {
	p := newPrisoner(t, direct)
	before := len(p.records())
	for _, args := range []string{
		"link add evil link eth0 address 02:00:00:00:00:66 type macvlan", "link set evil alias lanyard up",
		"addr add 192.168.50.99/24 dev evil",
	} {
		_, err := p.c.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	p.loseDatabase()
	if recs := p.records(); len(recs) != before {
		t.Errorf("%d records before, then %+v", before, recs)
	}
}
