package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// managed are the statements of a router that names DHCPv6 servers, for a link without SLAAC.
const managed = "AdvManagedFlag on; AdvDefaultLifetime 60; prefix fd78::/64 { AdvAutonomous off; };"

// deadline6 is enough for the link-local address and a server.
const deadline6 = network.Duration(4 * time.Second)

// lanDHCP6 is a lab with a service, a router that is also a DHCPv6 server, and network "web" with IPv6
// addresses from it, and without others.
func lanDHCP6(
	t *testing.T, serve func(gw *testenv.Station) *testenv.DHCPServer, edit ...func(*network.Definition),
) (*brokered, *testenv.Station, *testenv.DHCPServer) {
	t.Helper()
	testenv.OnOneKernel(t, "6.12")
	b := newBrokered(t, testenv.Config{})
	gw := b.AddGateway(0, "192.168.50.1/24", "fd78::1/64", "fd60::1/128")
	d := serve(gw)
	gw.ServeRadvd(managed)
	b.Define("web", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.Deadline = network.IPAMNone, network.IPv6DHCP, deadline6
		d.AllowUsers = []string{fmt.Sprint(alice)}
		for _, f := range edit {
			f(d)
		}
	})
	return b, gw, d
}

func dnsmasq6(gw *testenv.Station) *testenv.DHCPServer {
	return gw.ServeDHCP("fd78::100,fd78::1ff,64,120", "--dhcp-option=option6:dns-server,[fd78::53]")
}

func kea6(gw *testenv.Station) *testenv.DHCPServer {
	return gw.ServeKea6("fd78::/64", "fd78::100 - fd78::1ff")
}

func isc6(gw *testenv.Station) *testenv.DHCPServer {
	return gw.ServeISC6("fd78::/64", "fd78::100 fd78::1ff")
}

// lease6 returns the address of the only attachment, which must be a lease that its container can use.
func (b *brokered) lease6(c *testenv.Container) (r hook.Attachment, addr string) {
	b.tb.Helper()
	r = b.Record()
	if r.DHCP6 == nil || r.DHCP6.Lost != "" || !slices.Contains(r.Addrs, r.DHCP6.Addr) {
		b.tb.Fatalf("the record has %v, lease %+v", r.Addrs, r.DHCP6)
	}
	got, err := c.Exec("ip", "-6", "addr", "show", "dev", r.Interface, "scope", "global")
	must(b.tb, err)
	if strings.Count(got, "inet6") != 1 || !strings.Contains(got, "inet6 "+r.DHCP6.Addr.String()+" ") {
		b.tb.Fatalf("the interface has %s, and the record %s", got, r.DHCP6.Addr)
	}
	return r, r.DHCP6.Addr.Addr().String()
}

// verified returns the worst verdict of a later verification of the only attachment.
func (b *brokered) verified() (v verify.Verdict) {
	b.tb.Helper()
	a := b.Record()
	must(b.tb, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		all, err := l.Verify(ctx, a)
		if err == nil {
			v = verify.Worst(all)
		}
		return err
	}))
	return v
}

// TestDHCP6Lease checks that a container gets an IPv6 address from each server, with the length of the
// prefix and the default route of the router, before its first process runs; that a container of the same
// name gets the same address; and that the server has the address back.
func TestDHCP6Lease(t *testing.T) {
	for name, serve := range map[string]func(gw *testenv.Station) *testenv.DHCPServer{
		"dnsmasq": dnsmasq6, "kea": kea6, "isc": isc6,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "kea" { // dnsmasq is in TestDHCP6Killed
				testenv.ByName(t)
			}
			b, _, d := lanDHCP6(t, serve)
			before := b.Links(b.Host)
			c := testenv.NewContainer(t)
			b.MustAttach("c1", c, "network=web", "verify=strict")
			r, addr := b.lease6(c)
			if !mustPrefix("fd78::/64").Contains(r.DHCP6.Addr.Addr()) || r.DHCP6.Addr.Bits() != 64 || r.Verdict.Code != "ok" ||
				!strings.Contains(r.Verdict.Text, "a DHCPv6 server on") || !strings.Contains(r.Verdict.Text, addr) {
				t.Errorf("the record has %v, lease %+v, verdict %v", r.Addrs, r.DHCP6, r.Verdict)
			}
			hooklab.Pings(t, c.Namespace, "fd78::1")
			hooklab.Pings(t, c.Namespace, "fd60::1") // by the default route
			if got, err := hook.ReadNames(b.Paths().Names(), r.Netns.Inode); err != nil || len(got) != 1 ||
				fmt.Sprint(got[0].DNS) != "[fd78::53]" {
				t.Errorf("the hook reads the names %v, %v", got, err)
			}
			if got := b.changes(); len(got) != 0 {
				t.Errorf("the container is said to differ: %v", got)
			}
			if v := b.verified(); v.Code != verify.OK {
				t.Errorf("later, the verdict is %v", v)
			}
			b.DetachAndEnd("c1", c)
			d.WantLog(map[string]string{
				"dnsmasq": "DHCPRELEASE(eth0) 00:03:00:01:" + r.MAC.String(),
				"kea":     "binding for address " + addr + " and iaid",
				"isc":     "Client 00:03:00:01:" + r.MAC.String() + " releases address " + addr,
			}[name])
			b.WantNothing("web", before)
			again := testenv.NewContainer(t)
			b.MustAttach("c1", again, "network=web")
			if _, now := b.lease6(again); now != addr && name != "kea" { // Kea 2.2 deletes a released lease
				t.Errorf("a container of the same name had %s, and has %s", addr, now)
			}
			b.DetachAndEnd("c1", again)
			if files, err := os.ReadDir(b.Paths().Names()); err != nil || len(files) > 0 {
				t.Errorf("files of names are left: %v, %v", files, err)
			}
		})
	}
}

// TestDHCP6Renewed checks that the service renews a lease, also after it was killed, that a server that has
// lost its leases gives the same address again, and that another address is configured in the container.
func TestDHCP6Renewed(t *testing.T) {
	b, _, d := lanDHCP6(t, kea6)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	_, first := b.lease6(c)
	renewed := func(after string) {
		t.Helper()
		before := b.Record().DHCP6.Expires
		testenv.Eventually(t, "a renewed lease "+after, func() error {
			if r := b.Record(); r.DHCP6.Expires <= before || r.DHCP6.Lost != "" {
				return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
			}
			return nil
		})
		if _, addr := b.lease6(c); addr != first {
			t.Errorf("%s, the container has %s instead of %s", after, addr, first)
		}
	}
	renewed("of the running service")
	b.kill()
	b.start()
	renewed("after a kill of the service")
	b.loseDatabase()
	testenv.Eventually(t, "a lease of the rebuilt record", func() error {
		if all := b.Records(); len(all) != 1 || all[0].DHCP6 == nil || len(all[0].DHCP6.ServerID) == 0 {
			return fmt.Errorf("the records are %+v: %s", all, b.logged())
		}
		return nil
	})
	renewed("after the loss of the database")
	d.Change("nothing", "nothing") // restarts it
	renewed("after a restart of the server")
	d.Change("fd78::100 - fd78::1ff", "fd78::200 - fd78::2ff")
	testenv.Eventually(t, "an address of the new pool", func() error {
		if r := b.Record(); r.DHCP6.Lost != "" || !mustPrefix("fd78::200/120").Contains(r.DHCP6.Addr.Addr()) {
			return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
		}
		return nil
	})
	r, addr := b.lease6(c)
	if r.DHCP6.Addr.Bits() != 64 || r.Verdict.Code != verify.OK || len(b.changes()) != 0 {
		t.Errorf("the container has %s, verdict %v, changes %v", r.DHCP6.Addr, r.Verdict, b.changes())
	}
	hooklab.Pings(t, c.Namespace, "fd60::1")
	b.DetachAndEnd("c1", c)
	d.WantLog(addr)
}

// TestDHCP6Forgotten checks that a container keeps its address if its server has lost its leases.
func TestDHCP6Forgotten(t *testing.T) {
	testenv.ByName(t)
	for name, serve := range map[string]func(gw *testenv.Station) *testenv.DHCPServer{"kea": kea6, "isc": isc6} {
		t.Run(name, func(t *testing.T) {
			b, _, d := lanDHCP6(t, serve)
			c := testenv.NewContainer(t)
			b.MustAttach("c1", c, "network=web")
			_, addr := b.lease6(c)
			d.Forget()
			before := b.Record().DHCP6.Expires
			testenv.Eventually(t, "a renewed lease", func() error {
				if r := b.Record(); r.DHCP6.Expires <= before || r.DHCP6.Lost != "" {
					return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
				}
				return nil
			})
			// Kea extends a lease that it does not know; isc-dhcp-server has to be requested to give it again.
			if n := strings.Count(d.Log(), "Request message"); name == "isc" && n != 2 {
				t.Errorf("%d requests: %s", n, d.Log())
			}
			if _, now := b.lease6(c); now != addr || strings.Contains(b.logged(), "lost its address") {
				t.Errorf("the container had %s, and has %s: %s", addr, now, b.logged())
			}
		})
	}
}

// TestDHCP6Conflict checks that an address with a claimant is declined to the server, and that the
// container gets another one.
func TestDHCP6Conflict(t *testing.T) {
	b, _, d := lanDHCP6(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeKea6("fd78::/64", "fd78::100 - fd78::101")
	})
	b.AddClaimant(0, "fd78::100/64")
	for _, id := range []string{"c1", "c2"} { // at least one of them is offered the address
		b.Attach(id, testenv.NewContainer(t), "network=web")
	}
	d.WantLog("DHCP6_DECLINE_LEASE")
	if got := b.Record().Addrs; len(got) != 1 || got[0] != mustPrefix("fd78::101/64") {
		t.Errorf("the container has %v", got)
	}
}

// TestDHCP6NewMAC checks a container that gets another MAC, because its leased IPv4 address has a claimant:
// it has an IPv6 address as the client with that MAC, and the server has the first one back.
func TestDHCP6NewMAC(t *testing.T) {
	b, _, d := lanDHCP6(t, kea6)
	b.Define("four", b.Trunk, func(d *network.Definition) {
		d.IPv6Mode, d.ShareParent = network.IPv6DHCP, true
	}, "192.168.50.0/24")
	b.AddClaimant(0, "192.168.50.2/24")
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=four", "verify=strict")
	r, addr := b.lease6(c)
	if len(r.Addrs) != 2 || r.Addrs[0] != mustPrefix("192.168.50.3/24") || len(r.Pools) != 2 {
		t.Errorf("the record has %v in %v", r.Addrs, r.Pools)
	}
	log := d.Log()
	if !strings.Contains(log, "binding for address fd78::100 and iaid") ||
		!strings.Contains(log, fmt.Sprintf("duid=[00:03:00:01:%s]", r.MAC)) || addr == "fd78::100" {
		t.Errorf("the container has %s with %s: %s", addr, r.MAC, log)
	}
	hooklab.Pings(t, c.Namespace, "fd60::1")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.DetachAndEnd("c1", c)
	d.WantLog("binding for address " + addr + " and iaid")
}

// TestDHCP6Silent checks the verdict of a start without a server, and what it says of the router.
func TestDHCP6Silent(t *testing.T) {
	b, _, d := lanDHCP6(t, dnsmasq6)
	d.Stop()
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.Refused("a silent server", b.Attach("c1", c, "network=web"), 1, string(verify.DHCPSilent),
		"no DHCPv6 server answered", "names such servers by its M flag", "check the DHCPv6 server")
	b.WantNothing("web", before)
}

// TestDHCP6Full checks the words about a server without a free address, and that the next container gets
// the one that is released.
func TestDHCP6Full(t *testing.T) {
	b, _, d := lanDHCP6(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeKea6("fd78::/64", "fd78::100 - fd78::100")
	})
	first, second := testenv.NewContainer(t), testenv.NewContainer(t)
	b.MustAttach("c1", first, "network=web")
	b.Refused("a pool without a free address", b.Attach("c2", second, "network=web"), 1,
		"DHCPv6 server fe80::", "it has no address for the container (NoAddrsAvail")
	b.DetachAndEnd("c1", first)
	d.WantLog("binding for address fd78::100 and iaid")
	b.MustAttach("c2", second, "network=web")
	b.lease6(second)
}

// lanBoth is lanDHCP with a network that has addresses of both families from servers.
func lanBoth(t *testing.T, edit ...func(*network.Definition)) (
	b *brokered, gw *testenv.Station, four, six *testenv.DHCPServer,
) {
	t.Helper()
	b, gw, four = lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	gw.AddAddr("fd78::1/64")
	six = kea6(gw)
	gw.ServeRadvd(managed)
	b.Define("both", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.ShareParent = network.IPAMDHCP, network.IPv6DHCP, true
		d.AllowUsers = []string{fmt.Sprint(alice)}
		for _, f := range edit {
			f(d)
		}
	})
	return b, gw, four, six
}

// TestDHCP6Both checks a container with both addresses from servers, of which one is lost and replaced
// while the other one stays.
func TestDHCP6Both(t *testing.T) {
	b, gw, four, six := lanBoth(t)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=both", "verify=strict")
	gw.AddAddr("192.168.50.7/24")
	first, addr := b.lease6(c)
	if len(first.Addrs) != 2 || len(first.Verdicts) != 2 || first.Verdict.Code != verify.OK {
		t.Fatalf("the record has %v, verdicts %v", first.Addrs, first.Verdicts)
	}
	four.Change("routers 192.168.50.1;", "routers 192.168.50.7;")
	testenv.Eventually(t, "another IPv4 gateway", func() error {
		if r := b.Record(); r.DHCP.Lost != "" || fmt.Sprint(r.Gateways) != "[192.168.50.7]" {
			return fmt.Errorf("the record has %v, lease %+v: %s", r.Gateways, r.DHCP, b.logged())
		}
		return nil
	})
	r, now := b.lease6(c)
	if now != addr || len(r.Addrs) != 2 || len(r.Verdicts) != 2 || len(b.changes()) != 0 {
		t.Errorf("the record has %v, verdicts %v, changes %v", r.Addrs, r.Verdicts, b.changes())
	}
	six.Change("fd78::100 - fd78::1ff", "fd78::200 - fd78::2ff")
	testenv.Eventually(t, "an address of the new pool", func() error {
		if r := b.Record(); r.DHCP6.Lost != "" || !mustPrefix("fd78::200/120").Contains(r.DHCP6.Addr.Addr()) {
			return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
		}
		return nil
	})
	r, _ = b.lease6(c)
	if r.DHCP.Lost != "" || r.Addrs[0] != first.Addrs[0] || len(r.Verdicts) != 2 || len(b.changes()) != 0 {
		t.Errorf("the record has %v, verdicts %v, changes %v", r.Addrs, r.Verdicts, b.changes())
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.7")
	six.Change(`{"pool": "fd78::200 - fd78::2ff"}`, "")
	testenv.Eventually(t, "the loss of the IPv6 address to be said", func() error {
		for _, change := range b.changes() {
			if change.Code == verify.LeaseLost && strings.Contains(change.Text, "has no IPv6 address") {
				return nil
			}
		}
		return errors.New(b.logged())
	})
	if r := b.Record(); len(r.Addrs) != 1 || r.DHCP.Lost != "" {
		t.Errorf("without IPv6, the record has %v", r.Addrs)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.7")
	six.Change(`"pools": []`, `"pools": [{"pool": "fd78::300 - fd78::3ff"}]`)
	testenv.Eventually(t, "the address again", func() error {
		if r := b.Record(); r.DHCP6.Lost != "" || len(r.Addrs) != 2 {
			return fmt.Errorf("the record has %+v: %s", r.DHCP6, b.logged())
		}
		return nil
	})
	b.lease6(c)
	b.DetachAndEnd("c1", c)
}

// TestDHCP6WhileOtherLost checks that a lost IPv4 lease, for which the service waits a minute each time, does not
// keep the service from extending the IPv6 lease.
func TestDHCP6WhileOtherLost(t *testing.T) {
	b, gw, four, six := lanBoth(t, func(d *network.Definition) { d.Deadline = network.Duration(time.Minute) })
	six.Change(`"rebind-timer": 30`, `"rebind-timer": 4`)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=both", "verify=strict")
	four.Stop()
	gw.ServeDHCP("192.168.50.0,static") // ends the lease, and offers none
	testenv.Eventually(t, "the loss of the IPv4 address", func() error {
		if r := b.Record(); r.DHCP.Lost == "" {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	for range 2 {
		before := b.Record().DHCP6.Expires
		testenv.Eventually(t, "an extended IPv6 lease", func() error {
			if r := b.Record(); r.DHCP6.Lost != "" || r.DHCP6.Expires <= before {
				return fmt.Errorf("the lease is %+v: %s", r.DHCP6, b.logged())
			}
			return nil
		})
	}
	if r := b.Record(); r.DHCP.Lost == "" {
		t.Errorf("the IPv4 lease is not lost any more: %+v", r.DHCP)
	}
}

// TestDHCP6Rebound is TestDHCPRebound for DHCPv6.
func TestDHCP6Rebound(t *testing.T) {
	b, _, d := lanDHCP6(t, kea6)
	d.Change(`"rebind-timer": 30`, `"rebind-timer": 6`)
	other := b.AddGateway(0, "fd78::2/64")
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	old, addr := b.lease6(c)
	d.Stop()
	dnsmasq6(other)
	testenv.Eventually(t, "the other server", func() error {
		if r := b.Record(); r.DHCP6.ServerMAC != other.MAC {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP6, b.logged())
		}
		return nil
	})
	r, now := b.lease6(c)
	if now != addr || r.DHCP6.Expires <= old.DHCP6.Expires || strings.Contains(b.logged(), "lost its address") {
		t.Errorf("the container had %s and has %s, lease %+v: %s", addr, now, r.DHCP6, b.logged())
	}
	hooklab.Pings(t, c.Namespace, "fd60::1")
	b.DetachAndEnd("c1", c)
}

// TestDHCP6HalfReattached checks that an interface with a lost lease of one family is created again without
// it, if no server gives another one, and that the service goes on asking for that.
func TestDHCP6HalfReattached(t *testing.T) {
	b, _, _, six := lanBoth(t)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=both", "verify=strict")
	first := b.Record()
	six.Change(`{"pool": "fd78::100 - fd78::1ff"}`, "")
	wantLost := func() {
		t.Helper()
		testenv.Eventually(t, "the loss of the IPv6 address", func() error {
			if r := b.Record(); r.DHCP6 == nil || r.DHCP6.Lost == "" || len(r.Addrs) != 1 || r.Addrs[0] != first.Addrs[0] {
				return fmt.Errorf("the record has %v, lease %+v: %s", r.Addrs, r.DHCP6, b.logged())
			}
			return nil
		})
	}
	wantLost()
	_, err := c.Exec("ip", "link", "del", "eth0")
	must(t, err)
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, first.ID)
		return err
	}))
	wantLost()
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	six.Change(`"pools": []`, `"pools": [{"pool": "fd78::100 - fd78::1ff"}]`)
	testenv.Eventually(t, "the IPv6 address again", func() error {
		if r := b.Record(); r.DHCP6.Lost != "" || len(r.Addrs) != 2 {
			return fmt.Errorf("the record has %v, lease %+v: %s", r.Addrs, r.DHCP6, b.logged())
		}
		return nil
	})
	b.lease6(c)
	hooklab.Pings(t, c.Namespace, "fd78::1")
	b.DetachAndEnd("c1", c)
}
