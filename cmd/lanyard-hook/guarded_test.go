package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestGuarded checks that a guarded container has an ordinary interface that works on the
// LAN.
func TestGuarded(t *testing.T) {
	b, gw := lanBrokered(t, hooklab.MACFromAddress)
	before := b.Links(b.Host)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9", "ip6=fd50::9",
		"sysctl.net.ipv4.conf.IFNAME.rp_filter=2")
	if out, err := c.Exec("cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"); err != nil || strings.TrimSpace(out) != "2" {
		t.Errorf("rp_filter is %q, %v", out, err)
	}
	a := b.Record()
	if a.State != hook.Attached || a.Verdict.Code != verify.OK || a.Guard == nil || a.Guard.Inside == 0 ||
		a.Owner != alice {
		t.Errorf("record is %+v", a)
	}
	if l, err := c.Netlink().LinkByName("eth0"); err != nil || l.Type() != "veth" ||
		l.Attrs().HardwareAddr.String() != "02:42:c0:a8:32:09" {
		t.Errorf("eth0 is %+v, %v", l, err)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	hooklab.Pings(t, c.Namespace, "fd50::1")
	b.detachAndEndBy(t, alice, "c1", c)
	b.WantNothing("web", before)
	b.wantNoGuards(t)
	// A station of the LAN sends first, by IPv6 too, without a neighbour entry for the
	// container.
	next := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c2", next.Pid, "network=web", "ip=192.168.50.10", "ip6=fd50::10")
	hooklab.Pings(t, gw.Namespace, "fd50::10")
	hooklab.Pings(t, gw.Namespace, "192.168.50.10")
}

// TestGuardedTakesParentsMAC checks that a guarded container that gives its interface the MAC of the
// parent is reported: its guard drops its frames.
func TestGuardedTakesParentsMAC(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	parent, err := b.Host.Netlink().LinkByName(b.Trunk)
	must(t, err)
	hooklab.IP(t, c.Namespace, "link set eth0 address "+parent.Attrs().HardwareAddr.String())
	a := b.Record()
	must(t, b.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		all, err := l.Changes([]hook.Attachment{a})
		if list := all[a.ID]; len(list) != 1 || list[0].Code != verify.InterfaceChanged {
			t.Errorf("changes are %+v", list)
		}
		return err
	}))
	b.detachAndEndBy(t, alice, "c1", c)
}

// TestGuardedSiblings checks that guarded containers and root's containers reach each
// other.
func TestGuardedSiblings(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	one, two, rootful := testenv.NewRootless(t, alice), testenv.NewRootless(t, bob), testenv.NewContainer(t)
	b.mustAttachBy(alice, "one", one.Pid, "network=web", "ip=192.168.50.11", "ip6=fd50::11")
	b.mustAttachBy(bob, "two", two.Pid, "network=web", "ip=192.168.50.12", "ip6=fd50::12")
	b.MustAttach("rootful", rootful, "network=web", "ip=192.168.50.13", "ip6=fd50::13")
	for _, x := range []struct {
		from *testenv.Container
		to   string
	}{{one, "12"}, {two, "11"}, {one, "13"}, {rootful, "12"}} {
		hooklab.Pings(t, x.from.Namespace, "192.168.50."+x.to)
		hooklab.Pings(t, x.from.Namespace, "fd50::"+x.to)
	}
}

// TestGuardedConflict checks that an address in use is declined for guarded containers
// too.
func TestGuardedConflict(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	b.AddClaimant(0, "192.168.50.2/24", "fd50::2/64")
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	if a := b.Record(); a.Addrs[0].String() != "192.168.50.3/24" || a.Addrs[1].String() != "fd50::3/64" ||
		a.Verdict.Code != verify.OK {
		t.Errorf("got %v, %+v", a.Addrs, a.Verdict)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	hooklab.Pings(t, c.Namespace, "fd50::1")
}

// TestGuardedRestart kills the service: containers keep running, and the next service
// releases what has ended.
func TestGuardedRestart(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	c, gone := testenv.NewRootless(t, alice), testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	b.mustAttachBy(alice, "c2", gone.Pid, "network=web")
	b.kill()
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	gone.End(t)
	b.start()
	testenv.Eventually(t, "the sweeper", func() error {
		if n := len(b.Records()); n != 1 {
			return fmt.Errorf("there are %d records", n)
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.detachAndEndBy(t, alice, "c1", c)
	b.WantNothing("web", before)
	b.wantNoGuards(t)
}

// TestGuardedRebuilt checks that guarded containers keep their addresses when the
// database is lost, and that links without a container are deleted.
func TestGuardedRebuilt(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	c, gone := testenv.NewRootless(t, alice), testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	b.mustAttachBy(alice, "c2", gone.Pid, "network=web")
	was := map[verify.ID]hook.Attachment{}
	for _, a := range b.Records() {
		was[a.ID] = a
	}
	b.kill()
	must(t, os.Remove(filepath.Join(wiring.PathsUnder(b.root).Run, "lanyard.db")))
	gone.End(t)
	b.start()
	next := testenv.NewRootless(t, bob)
	b.mustAttachBy(bob, "c3", next.Pid, "network=web")
	adopted := 0
	for _, a := range b.Records() {
		if old, ok := was[a.ID]; ok {
			adopted++
			if a.Owner != alice || a.Guard == nil || fmt.Sprint(a.Addrs) != fmt.Sprint(old.Addrs) || a.Interface != "eth0" ||
				old.Containers[0].ID != "c1" {
				t.Errorf("%+v was adopted as %+v", old, a)
			}
		}
	}
	if adopted != 1 || len(b.Records()) != 2 || b.Held("web") != 4 {
		t.Errorf("%d were adopted; %d records, %d leases", adopted, len(b.Records()), b.Held("web"))
	}
	if links := b.guardLinks(); len(links) != 5 {
		t.Errorf("the guards' namespace has %q", links)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	c.End(t)
	b.detachAndEndBy(t, bob, "c3", next)
	b.kill()
	b.start()
	testenv.Eventually(t, "the sweeper", func() error {
		if n := len(b.Records()); n > 0 {
			return fmt.Errorf("there are %d records", n)
		}
		return nil
	})
	b.WantNothing("web", before)
}

func TestGuardedModes(t *testing.T) {
	for _, mode := range []network.Mode{network.ModePrivate, network.ModeVEPA, network.ModePassthru} {
		t.Run(string(mode), func(t *testing.T) {
			b, _ := lanBrokered(t, func(d *network.Definition) { d.Mode = mode })
			c := testenv.NewRootless(t, alice)
			if mode == network.ModePassthru {
				b.Refused("passthru", b.attachBy(alice, "c1", c.Pid, "network=web"), 1, "passthru cannot be guarded")
				return
			}
			b.mustAttachBy(alice, "c1", c.Pid, "network=web")
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
		})
	}
}

// TestGuardedCarrier checks that a container's interface has a carrier while its parent
// has one.
func TestGuardedCarrier(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	carrier := func(want netlink.LinkOperState) {
		t.Helper()
		testenv.Eventually(t, fmt.Sprintf("eth0 to be %s", want), func() error {
			l, err := c.Netlink().LinkByName("eth0")
			if err == nil && (l.Attrs().OperState == netlink.OperUp) != (want == netlink.OperUp) {
				err = fmt.Errorf("it is %s", l.Attrs().OperState)
			}
			return err
		})
	}
	carrier(netlink.OperUp)
	b.SetTrunk(false)
	carrier(netlink.OperDown)
	b.SetTrunk(true)
	carrier(netlink.OperUp)
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	// The next service reads the parent's carrier itself.
	b.kill()
	b.SetTrunk(false)
	b.start()
	carrier(netlink.OperDown)
	b.SetTrunk(true)
	carrier(netlink.OperUp)
}

// TestServiceConfined runs the service with the capabilities of its systemd unit.
func TestServiceConfined(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	b.stop()
	b.confine = []string{"setpriv", "--bounding-set=-all,+net_admin,+net_raw,+bpf,+sys_admin,+sys_ptrace",
		"--inh-caps=-all", "--no-new-privs"}
	b.start()
	b.works("guarded")
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	must(t, c.Kill())
	b.mustDetachBy(alice, "c1")
}

// Guarded attachments on one of two hosts that are clones of each other: each passes over
// the addresses of the other, with the MACs that go with them.
func TestTwoHostsGuarded(t *testing.T) {
	wide := func(d *network.Definition) { d.ConflictWindow = network.Duration(300 * time.Millisecond) }
	a, _ := lanBrokered(t, wide)
	b := worldOf(a.AddHost(""))
	b.Define("web", b.Trunk, wide, "192.168.50.0/24", "fd50::/64")
	first, third := testenv.NewRootless(t, alice), testenv.NewRootless(t, alice)
	a.mustAttachBy(alice, "first", first.Pid, "network=web")
	b.MustAttach("second", testenv.NewContainer(t), "network=web")
	a.mustAttachBy(alice, "third", third.Pid, "network=web")
	held := map[string]string{}
	for host, w := range map[string]*world{"a": a.world, "b": b} {
		for _, r := range w.Records() {
			if (r.Guard != nil) != (host == "a") || r.Verdict.Code != verify.OK {
				t.Errorf("record on host %s is %+v", host, r)
			}
			for _, x := range append(hooklab.Addresses(r), r.MAC.String()) {
				if other := held[x]; other != "" {
					t.Errorf("%s is held by host %s and host %s", x, other, host)
				}
				held[x] = host
			}
		}
	}
	hooklab.Pings(t, first.Namespace, hooklab.Addresses(b.Record())[0])
	hooklab.Pings(t, third.Namespace, hooklab.Addresses(b.Record())[1])
}

// TestHostAccessRootless checks that the host reaches a guarded container.
func TestHostAccessRootless(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) { d.HostAccess = true })
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	for _, addr := range []string{"192.168.50.9", "fd50::9"} {
		hooklab.Pings(t, b.Host, addr)
	}
	for _, a := range b.Definition("web").HostAddresses {
		hooklab.Pings(t, c.Namespace, a.String())
	}
	b.WantNoUnleased()
	must(t, c.Kill())
	b.mustDetachBy(alice, "c1")
	b.WantHostRoutes(b.Definition("web").HostLink())
}

// TestReattachGuarded checks that a guarded container's interface, which the kernel does not delete
// with the parent, is reported as gone and created again.
func TestReattachGuarded(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	b.Unplug()
	wantGone(t, b, true)
	b.Replug()
	wantGone(t, b, true)
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, b.Record().ID)
		return err
	}))
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	hooklab.Pings(t, c.Namespace, "fd50::1")
	wantGone(t, b, false)
	b.detachAndEndBy(t, alice, "c1", c)
	b.wantNoGuards(t)
}

// wantGone checks whether the interface of the one attachment is reported as gone.
func wantGone(t *testing.T, b *brokered, gone bool) {
	t.Helper()
	must(t, b.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		a := b.Record()
		changes, err := l.Changes([]hook.Attachment{a})
		is := slices.ContainsFunc(changes[a.ID], func(c verify.Change) bool { return c.Code == verify.InterfaceGone })
		if is != gone {
			t.Errorf("changes are %+v, want gone: %v", changes[a.ID], gone)
		}
		return err
	}))
}
