package rebuild_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// byHand creates a link of a kind on the trunk, in a container, with an address of the network.
func byHand(t *testing.T, w *hooklab.Lab, c *testenv.Container, kind, addr string) {
	t.Helper()
	hooklab.IP(t, w.Host, "link add hand link "+w.Trunk+" type "+kind)
	hooklab.IP(t, w.Host, "link set hand netns "+c.Path())
	hooklab.IP(t, c.Namespace, "link set hand up")
	hooklab.IP(t, c.Namespace, "addr add "+addr+"/24 dev hand")
}

// TestRebuildLeavesForeignLinks checks that a new database gets no record of a macvlan that another
// program created on the parent of a network, as after a boot.
func TestRebuildLeavesForeignLinks(t *testing.T) { rebuildWithForeign(t, network.DriverMacvlan) }

// rebuildWithForeign loses the database of a network while a container has a link of the network's
// kind that another program created.
func rebuildWithForeign(t *testing.T, kind string) {
	w := hooklab.New(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	err := w.TryDefine("web", w.Trunk, func(d *network.Definition) { ofKind(d, kind) }, "192.168.50.0/24")
	if err != nil && !strings.Contains(err.Error(), "driver ipvlan sends with the MAC of parent") {
		t.Fatal(err)
	}
	w.LoseDatabase(false)
	byHand(t, w, testenv.NewContainer(t), kind, "192.168.50.99")
	if recs := w.Records(); len(recs) != 0 || w.Held("web") != 0 {
		t.Errorf("records of foreign links: %+v", recs)
	}
	ours := testenv.NewContainer(t)
	w.MustAttach("c1", ours, "network=web", "ip=192.168.50.9")
	for _, pins := range []bool{false, true} {
		w.LoseDatabase(pins)
		if got := hooklab.Addresses(w.Record()); !slices.Equal(got, []string{"192.168.50.9"}) {
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
	w, _ := hooklab.NewLAN(t, nil)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	_, err := c.Exec("ip", "link", "set", "eth0", "alias", "")
	must(t, err)
	w.LoseDatabase(false)
	if w.Record().MAC.IsZero() || w.Held("web") != 2 {
		t.Errorf("%d leases", w.Held("web"))
	}
	w.LoseDatabase(true)
	if recs := w.Records(); len(recs) != 0 {
		t.Errorf("records of foreign links: %+v", recs)
	}
}

// TestDamagedDatabase checks that a damaged database is renamed, reported, and rebuilt
// from kernel state.
func TestDamagedDatabase(t *testing.T) {
	for what, damage := range map[string]func(path string) error{
		"overwritten": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("garbage "), 8192), 0o600) },
		"cut off":     func(path string) error { return os.Truncate(path, 5000) },
		"deleted":     os.Remove,
	} {
		t.Run(what, func(t *testing.T) {
			w, _ := hooklab.NewLAN(t, nil)
			c1, c2 := testenv.NewContainer(t), testenv.NewContainer(t)
			w.MustAttach("c1", c1, "network=web")
			first := w.Record()
			must(t, damage(filepath.Join(w.Paths().Run, "lanyard.db")))
			// Its address is not given out again, not even by name.
			o := w.Attach("c2", c2, "network=web", "ip="+first.Addrs[0].Addr().String())
			if o.Status != 1 || !strings.Contains(o.Stderr, "is held by") {
				t.Fatalf("after the damage, the held address: %+v", o)
			}
			w.MustAttach("c2", c2, "network=web")
			if recs := w.Records(); len(recs) != 2 || w.Held("web") != 4 {
				t.Errorf("records are %+v, %d leases", recs, w.Held("web"))
			}
			for _, a := range w.Records() {
				if a.MAC == first.MAC && a.ID != first.ID {
					t.Errorf("the survivor has a new id: %+v", a)
				}
			}
			must(t, c1.Kill())
			c1.End(t)
			must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
				swept, err := l.Sweep(ctx)
				if len(swept) != 1 || swept[0].MAC != first.MAC {
					t.Errorf("swept %+v", swept)
				}
				return err
			}))
		})
	}
}

// TestLostDatabase loses or damages the database while containers run: every command
// rebuilds it.
func TestLostDatabase(t *testing.T) {
	for what, damage := range map[string]func(path string) error{
		"deleted": os.Remove,
		"garbage": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage ", 8192)), 0o600) },
	} {
		for command, run := range map[string]func(context.Context, *wiring.Lanyard) error{
			"gc": func(ctx context.Context, l *wiring.Lanyard) error {
				swept, err := l.Sweep(ctx)
				if len(swept) != 0 {
					err = fmt.Errorf("swept %+v", swept)
				}
				return err
			},
			"rm": func(ctx context.Context, l *wiring.Lanyard) error {
				if err := l.RemoveNetwork(ctx, "web"); err == nil || !strings.Contains(err.Error(), "is in use") {
					return fmt.Errorf("a network with a container on it was removed: %w", err)
				}
				return nil
			},
			"poststop": func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "another") },
		} {
			t.Run(what+", "+command, func(t *testing.T) {
				w, _ := hooklab.NewLAN(t, nil)
				c := testenv.NewContainer(t)
				w.MustAttach("c1", c, "network=web")
				must(t, damage(filepath.Join(w.Paths().Run, "lanyard.db")))
				must(t, w.Admin(run))
				if w.Record().MAC.IsZero() || w.Held("web") != 2 || w.Watched() != 1 {
					t.Errorf("%d leases, %d endpoints", w.Held("web"), w.Watched())
				}
				hooklab.Pings(t, c.Namespace, "192.168.50.1")
			})
		}
	}
}

// TestVerifyAfterLoss checks that a gateway that was added to the definition before the
// database was lost is probed like any other.
func TestVerifyAfterLoss(t *testing.T) {
	w := hooklab.New(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Subnets[1].Gateway = netip.Addr{} }, "192.168.50.0/24",
		"fd50::/64")
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	must(t, os.Remove(filepath.Join(w.Paths().Run, "lanyard.db")))
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		d, err := network.Load(l.Networks, "web")
		if err != nil {
			return err
		}
		d.Subnets[1].Gateway = netip.MustParseAddr("fd50::1")
		if err := d.Save(l.Networks); err != nil {
			return err
		}
		recs, err := l.Attachments(ctx)
		if err != nil {
			return err
		}
		verdicts, err := l.Verify(ctx, recs[0])
		if len(verdicts) != 2 || verdicts[0].Code != verify.OK || verdicts[1].Code != verify.OK {
			t.Errorf("verdicts are %+v", verdicts)
		}
		return err
	}))
}

// TestConcurrentRebuild has two processes find a new database. The first rebuilds it and
// attaches while the second still reads namespaces.
func TestConcurrentRebuild(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	var hooks sync.WaitGroup
	for i := range 8 {
		c := testenv.NewContainer(t)
		hooks.Go(func() {
			if o := w.Attach(fmt.Sprintf("c%d", i), c, "network=web"); o.Status != 0 {
				t.Errorf("%d: %+v", i, o)
			}
		})
	}
	hooks.Wait()
	for _, a := range w.Records() {
		if len(a.Containers) != 1 || a.Verdict.Code == verify.Unverified {
			t.Errorf("record is %+v", a)
		}
	}
	if w.Held("web") != 16 || w.Watched() != 8 {
		t.Errorf("%d leases, %d endpoints", w.Held("web"), w.Watched())
	}
}
