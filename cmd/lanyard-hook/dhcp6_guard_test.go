package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// patient waits for a kernel that takes seconds to check the link-local address, as on a busy machine.
func patient(d *network.Definition) { d.Deadline = network.Duration(20 * time.Second) }

// wantPermit checks that the guard of the only attachment permits these addresses only.
func (b *brokered) wantPermit(addrs ...netip.Addr) {
	b.tb.Helper()
	if g := b.Record().Guard; g == nil || !slices.Equal(g.Addrs, addrs) || g.Autoconf {
		b.tb.Errorf("the guard permits %+v, want %v", g, addrs)
	}
}

// cannotUse checks that a container's root cannot use an address of fd78::/64.
func cannotUse(t *testing.T, c *testenv.Container, addr string) {
	t.Helper()
	_, err := c.Exec("ip", "addr", "add", addr+"/64", "dev", "eth0", "nodad")
	must(t, err)
	if out, err := c.Exec("ping", "-c1", "-W1", "-I", addr, "fd78::1"); err == nil {
		t.Errorf("the container can use %s: %s", addr, out)
	}
	_, err = c.Exec("ip", "addr", "del", addr+"/64", "dev", "eth0")
	must(t, err)
}

// TestDHCP6Guarded checks that a rootless container has an address from a DHCPv6 server, and that its guard
// permits this address from its first lease to its last, and no other: also after a renewal, after another
// lease and after the end of one.
func TestDHCP6Guarded(t *testing.T) {
	b, _, d := lanDHCP6(t, kea6, patient)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "verify=strict")
	first, addr := b.lease6(c)
	b.wantPermit(first.DHCP6.Addr.Addr())
	hooklab.Pings(t, c.Namespace, "fd78::1")
	hooklab.Pings(t, c.Namespace, "fd60::1") // by the default route
	cannotUse(t, c, "fd78::200")

	renewed := func(after string, is func(r hook.Attachment) bool) {
		t.Helper()
		testenv.Eventually(t, "a lease "+after, func() error {
			if r := b.Record(); r.DHCP6.Lost != "" || !is(r) {
				return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
			}
			return nil
		})
	}
	renewed("that was renewed", func(r hook.Attachment) bool { return r.DHCP6.Expires > first.DHCP6.Expires })
	hooklab.Pings(t, c.Namespace, "fd78::1")
	d.Change("fd78::100 - fd78::1ff", "fd78::200 - fd78::2ff")
	renewed("of the new pool", func(r hook.Attachment) bool {
		return mustPrefix("fd78::200/120").Contains(r.DHCP6.Addr.Addr())
	})
	second, _ := b.lease6(c)
	b.wantPermit(second.DHCP6.Addr.Addr())
	if second.Index != first.Index || len(b.changes()) != 0 {
		t.Errorf("the interface had ifindex %d, and has %d; changes %v", first.Index, second.Index, b.changes())
	}
	hooklab.Pings(t, c.Namespace, "fd60::1")
	cannotUse(t, c, addr)

	d.Change(`{"pool": "fd78::200 - fd78::2ff"}`, "")
	testenv.Eventually(t, "the loss of the address", func() error {
		if r := b.Record(); r.DHCP6.Lost == "" || len(r.Addrs) > 0 {
			return errors.New(b.logged())
		}
		return nil
	})
	cannotUse(t, c, second.DHCP6.Addr.Addr().String())
	d.Change(`"pools": []`, `"pools": [{"pool": "fd78::300 - fd78::3ff"}]`)
	renewed("after the loss", func(hook.Attachment) bool { return true })
	last, addr := b.lease6(c)
	b.wantPermit(last.DHCP6.Addr.Addr())
	hooklab.Pings(t, c.Namespace, "fd60::1")
	b.detachAndEndBy(t, alice, "c1", c)
	d.WantLog("binding for address " + addr + " and iaid")
	b.wantNoGuards(t)
}

// TestDHCP6GuardedRebuilt checks that the lease of a rootless container is renewed after the database was lost.
func TestDHCP6GuardedRebuilt(t *testing.T) {
	b, _, _ := lanDHCP6(t, kea6, patient)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	before, _ := b.lease6(c)
	b.LoseDatabase(false)
	testenv.Eventually(t, "a rebuilt lease", func() error {
		if all := b.Records(); len(all) != 1 || all[0].DHCP6 == nil || len(all[0].DHCP6.ServerID) == 0 {
			return fmt.Errorf("the records are %+v: %s", all, b.logged())
		}
		return nil
	})
	if r, _ := b.lease6(c); r.DHCP6.Addr != before.DHCP6.Addr || r.Guard.Outside != before.Guard.Outside {
		t.Errorf("the record had %+v, and has %+v", before.DHCP6, r.DHCP6)
	}
	hooklab.Pings(t, c.Namespace, "fd78::1")
}

// TestDHCP6GuardedConflict checks that the guard of a rootless container permits the next address, if another
// station has the first one.
func TestDHCP6GuardedConflict(t *testing.T) {
	b, _, d := lanDHCP6(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeKea6("fd78::/64", "fd78::100 - fd78::101")
	}, patient)
	b.AddClaimant(0, "fd78::100/64")
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "verify=strict")
	if !strings.Contains(d.Log(), "DHCP6_DECLINE_LEASE") { // Kea has begun with the other address
		b.detachAndEndBy(t, alice, "c1", c)
		c = testenv.NewRootless(t, alice)
		b.mustAttachBy(alice, "c2", c.Pid, "network=web", "verify=strict")
	}
	d.WantLog("DHCP6_DECLINE_LEASE")
	if r, addr := b.lease6(c); addr != "fd78::101" {
		t.Errorf("the record has %v", r.Addrs)
	}
	b.wantPermit(netip.MustParseAddr("fd78::101"))
	hooklab.Pings(t, c.Namespace, "fd60::1")
	cannotUse(t, c, "fd78::100")
}

// TestDHCP6GuardedBoth checks that the loss and the change of one lease of a rootless container leave the
// address of the other family in its guard and in its interface.
func TestDHCP6GuardedBoth(t *testing.T) {
	b, gw, four, six := lanBoth(t, patient)
	gw.AddAddr("192.168.50.7/24")
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=both", "verify=strict")
	first, _ := b.lease6(c)
	b.wantPermit(first.DHCP.Addr.Addr(), first.DHCP6.Addr.Addr())
	six.Change(`{"pool": "fd78::100 - fd78::1ff"}`, "")
	testenv.Eventually(t, "the loss of the IPv6 address", func() error {
		if r := b.Record(); r.DHCP6.Lost == "" || len(r.Addrs) != 1 {
			return fmt.Errorf("the record has %v, lease %+v: %s", r.Addrs, r.DHCP6, b.logged())
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	cannotUse(t, c, first.DHCP6.Addr.Addr().String())
	six.Change(`"pools": []`, `"pools": [{"pool": "fd78::100 - fd78::1ff"}]`)
	four.Change("routers 192.168.50.1;", "routers 192.168.50.7;")
	testenv.Eventually(t, "both leases", func() error {
		if r := b.Record(); r.DHCP6.Lost != "" || r.DHCP.Lost != "" || len(r.Addrs) != 2 ||
			fmt.Sprint(r.Gateways) != "[192.168.50.7]" {
			return fmt.Errorf("the record has %v by %v, leases %+v, %+v: %s", r.Addrs, r.Gateways, r.DHCP, r.DHCP6, b.logged())
		}
		return nil
	})
	now, _ := b.lease6(c)
	b.wantPermit(now.DHCP.Addr.Addr(), now.DHCP6.Addr.Addr())
	if now.Index != first.Index || len(b.changes()) != 0 {
		t.Errorf("the interface had ifindex %d, and has %d; changes %v", first.Index, now.Index, b.changes())
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.7")
	hooklab.Pings(t, c.Namespace, "fd78::1")
	b.detachAndEndBy(t, alice, "c1", c)
	b.wantNoGuards(t)
}

// TestDHCP6GuardedParent checks that the guard of a parent permits the leased address of a container of root
// until the lease ends, and no other.
func TestDHCP6GuardedParent(t *testing.T) {
	b, _, d := lanDHCP6(t, kea6, patient, func(d *network.Definition) { d.AllowUsers, d.Guard = nil, network.On })
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web", "verify=strict")
	first, _ := b.lease6(c)
	if !first.AtParent {
		t.Fatalf("the record is %+v", first)
	}
	hooklab.Pings(t, c.Namespace, "fd60::1")
	cannotUse(t, c, "fd78::200")
	d.Change(`{"pool": "fd78::100 - fd78::1ff"}`, "")
	testenv.Eventually(t, "the loss of the address", func() error {
		if r := b.Record(); r.DHCP6.Lost == "" || len(r.Addrs) > 0 {
			return errors.New(b.logged())
		}
		return nil
	})
	cannotUse(t, c, first.DHCP6.Addr.Addr().String())
	d.Change(`"pools": []`, `"pools": [{"pool": "fd78::200 - fd78::2ff"}]`)
	testenv.Eventually(t, "another lease", func() error {
		if r := b.Record(); r.DHCP6.Lost != "" {
			return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
		}
		return nil
	})
	b.lease6(c)
	hooklab.Pings(t, c.Namespace, "fd60::1")
	b.DetachAndEnd("c1", c)
}
