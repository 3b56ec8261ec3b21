package main

import (
	"context"
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

// lanDHCP is a lab with a service, a gateway that is also a DHCP server, and network "web" with
// addresses from it.
func lanDHCP(
	t *testing.T, serve func(gw *testenv.Station) *testenv.DHCPServer,
) (*brokered, *testenv.Station, *testenv.DHCPServer) {
	t.Helper()
	b := newBrokered(t, testenv.Config{})
	gw := b.AddGateway(0, "192.168.50.1/24")
	d := serve(gw)
	b.Define("web", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.AllowUsers = network.IPAMDHCP, []string{fmt.Sprint(alice)}
	})
	return b, gw, d
}

// dnsmasq leases 192.168.50.100 to .150.
func dnsmasq(gw *testenv.Station) *testenv.DHCPServer {
	return gw.ServeDHCP("192.168.50.100,192.168.50.150,120")
}

// isc leases the addresses of a range for a minute, to be renewed after one second.
func isc(leases string) func(gw *testenv.Station) *testenv.DHCPServer {
	return func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeISC("192.168.50.0", "255.255.255.0", leases, "option routers 192.168.50.1;")
	}
}

// held counts the leases in the pool of network "web".
func (b *brokered) held() (n int) {
	b.tb.Helper()
	must(b.tb, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		def, err := network.Load(l.Networks, "web")
		if err != nil {
			return err
		}
		counts, err := l.Leases.Own.Count(ctx, def.Name+"/"+def.ID+"/dhcp")
		n = counts.Held
		return err
	}))
	return n
}

// changes returns how the only attachment differs from what it was given.
func (b *brokered) changes() (list []verify.Change) {
	b.tb.Helper()
	a := b.Record()
	must(b.tb, b.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		all, err := l.Changes([]hook.Attachment{a})
		list = all[a.ID]
		return err
	}))
	return list
}

// TestDHCPLease checks that a container gets address, gateway, routes and MTU from a server before its
// first process runs, and that the server has the address back after its end.
func TestDHCPLease(t *testing.T) {
	b, gw, d := lanDHCP(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeDHCP("192.168.50.100,192.168.50.150,120", "--dhcp-option=26,1400", "--dhcp-option=6,192.168.50.5",
			"--dhcp-option=121,10.9.0.0/16,192.168.50.7,0.0.0.0/0,192.168.50.1")
	})
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	r := b.Record()
	if len(r.Addrs) != 1 || r.DHCP == nil || r.Addrs[0] != r.DHCP.Addr || r.DHCP.Server.String() != "192.168.50.1" ||
		r.DHCP.ServerMAC != gw.MAC || r.MTU != 1400 || r.Verdict.Code != "ok" || b.held() != 1 {
		t.Errorf("the record has %v, lease %+v, MTU %d, verdict %v; %d leases", r.Addrs, r.DHCP, r.MTU, r.Verdict, b.held())
	}
	routes, err := c.Exec("ip", "route")
	must(t, err)
	for _, want := range []string{"default via 192.168.50.1 ", "10.9.0.0/16 via 192.168.50.7 "} {
		if !strings.Contains(routes, want) {
			t.Errorf("routes of the container: %s, want %s", routes, want)
		}
	}
	addr, err := c.Exec("ip", "addr", "show", "eth0")
	must(t, err)
	if !strings.Contains(addr, "valid_lft 1") || !strings.Contains(addr, "mtu 1400") {
		t.Errorf("the address does not end with its lease, or the MTU is not the server's: %s", addr)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	if got, err := hook.ReadNames(b.Paths().Names(), r.Netns.Inode); err != nil || len(got) != 1 ||
		fmt.Sprint(got[0].DNS) != "[192.168.50.5]" {
		t.Errorf("the hook reads the names %v, %v", got, err)
	}
	b.DetachAndEnd("c1", c)
	if got, err := os.ReadDir(b.Paths().Names()); err != nil || len(got) > 0 {
		t.Errorf("files of names are left: %v, %v", got, err)
	}
	d.WantLog("DHCPRELEASE(eth0) " + r.Addrs[0].Addr().String() + " " + r.MAC.String())
	b.WantNothing("web", before)
	if b.held() != 0 {
		t.Error("a lease is left")
	}
}

// TestDHCPPriorityTag has gateways and servers of which each frame has a priority and no VLAN, which the
// kernel takes as one without a tag.
func TestDHCPPriorityTag(t *testing.T) {
	for name, lan := range map[string]func() (*brokered, *testenv.Station){
		"DHCP":   func() (*brokered, *testenv.Station) { b, gw, _ := lanDHCP(t, dnsmasq); return b, gw },
		"DHCPv6": func() (*brokered, *testenv.Station) { b, gw, _ := lanDHCP6(t, dnsmasq6); return b, gw },
	} {
		b, gw := lan()
		defer gw.TagPriority()()
		b.MustAttach("c-"+name, testenv.NewContainer(t), "network=web", "verify=strict")
		if r := b.Record(); r.Verdict.Code != verify.OK {
			t.Errorf("%s: the verdict is %+v", name, r.Verdict)
		}
	}
}

// TestDHCPRequested checks that a container gets the address that it asks for, or does not start.
func TestDHCPRequested(t *testing.T) {
	b, _, d := lanDHCP(t, dnsmasq)
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web", "ip=192.168.50.123")
	if a := b.Record().Addrs; len(a) != 1 || a[0] != mustPrefix("192.168.50.123/24") {
		t.Errorf("the container has %v", a)
	}
	other := testenv.NewContainer(t)
	b.Refused("an address of another container", b.Attach("c2", other, "network=web", "ip=192.168.50.123"), 1,
		"instead of the requested 192.168.50.123", "DHCP server 192.168.50.1")
	b.Refused("an IPv6 address", b.Attach("c2", other, "network=web", "ip6=fd50::9"), 1, "omit io.lanyard.ip6")
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
	d.WantLog("DHCPRELEASE(eth0) 192.168.50.123")
}

// TestDHCPStable checks that the server knows a container by its name again: it gets the same address
// after others came and went.
func TestDHCPStable(t *testing.T) {
	b, _, _ := lanDHCP(t, dnsmasq)
	start := func(id string) (*testenv.Container, string) {
		c := testenv.NewContainer(t)
		b.MustAttach(id, c, "network=web")
		recs := b.Records()
		i := slices.IndexFunc(recs, func(a hook.Attachment) bool { return a.Containers[0].ID == id })
		return c, recs[i].Addrs[0].String()
	}
	c, first := start("web-1")
	b.DetachAndEnd("web-1", c)
	_, other := start("web-2")
	if _, again := start("web-1"); again != first || other == first {
		t.Errorf("web-1 had %s and has %s; web-2 has %s", first, again, other)
	}
}

// TestDHCPWithoutService checks that no container starts with a lease that no process would renew.
func TestDHCPWithoutService(t *testing.T) {
	b, _, _ := lanDHCP(t, dnsmasq)
	before := b.Links(b.Host)
	b.stop()
	c := testenv.NewContainer(t)
	b.Refused("without a service", b.Attach("c1", c, "network=web"), 1, "only the service renews",
		"systemctl start lanyard")
	b.WantNothing("web", before)
	b.start()
	b.MustAttach("c1", c, "network=web")
	b.stop()
	b.DetachAndEnd("c1", c) // without a service
	b.start()
	b.WantNothing("web", before)
}

// TestDHCPConflict checks that an address with a claimant is declined to the server, and that the
// container gets another one.
func TestDHCPConflict(t *testing.T) {
	b, _, d := lanDHCP(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeDHCP("192.168.50.100,192.168.50.101,120")
	})
	b.AddClaimant(0, "192.168.50.100/24")
	c := testenv.NewContainer(t)
	for _, id := range []string{"c1", "c2", "c3"} { // at least one of them is offered the address
		b.Attach(id, c, "network=web", "interface=eth"+id[1:])
	}
	d.WantLog("DHCPDECLINE(eth0) 192.168.50.100 ")
	got := b.Record().Addrs
	if len(got) != 1 || got[0] != mustPrefix("192.168.50.101/24") {
		t.Errorf("the container has %v", got)
	}
}

// TestDHCPRenewed checks that the service renews a lease, also after it was killed, that a server that is
// back later extends it, and that a lease that the server ends is replaced.
func TestDHCPRenewed(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	first := *b.Record().DHCP
	renewed := func(after string) {
		t.Helper()
		before := b.Record().DHCP.Expires
		testenv.Eventually(t, "a renewed lease "+after, func() error {
			if r := b.Record(); r.DHCP.Expires <= before || r.DHCP.Lost != "" {
				return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
			}
			return nil
		})
	}
	renewed("at T1")
	_, err := c.Exec("ip", "addr", "del", first.Addr.String(), "dev", "eth0")
	must(t, err)
	testenv.Eventually(t, "the address and its routes", func() error {
		routes, err := c.Exec("ip", "route")
		if err == nil && !strings.Contains(routes, "default via 192.168.50.1 ") {
			err = fmt.Errorf("the routes are %q: %s", routes, b.logged())
		}
		return err
	})
	b.kill()
	b.start()
	renewed("after the service was killed")
	if now := b.Record().DHCP; now.Addr != first.Addr {
		t.Errorf("the address was %s and is %s", first.Addr, now.Addr)
	}
	b.LoseDatabase(false)
	testenv.Eventually(t, "a rebuilt lease", func() error {
		if r := b.Record(); r.DHCP == nil || r.DHCP.Server != first.Server || len(r.Gateways) != 1 ||
			!slices.Equal(r.Endpoint.Gateways, r.Gateways) {
			return fmt.Errorf("the lease is %+v, gateways %s: %s", r.DHCP, r.Gateways, b.logged())
		}
		return nil
	})

	// Another server, which ends the lease and has no address; then it has a range.
	d.Stop()
	d = gw.ServeDHCP("192.168.50.0,static")
	testenv.Eventually(t, "a lost lease", func() error {
		changes := b.changes()
		if len(changes) != 1 || changes[0].Code != verify.LeaseLost || !strings.Contains(changes[0].Text, "refuses address") {
			return fmt.Errorf("the changes are %v: %s", changes, b.logged())
		}
		return nil
	})
	if out, err := c.Exec("ip", "-4", "addr", "show", "eth0"); err != nil || strings.Contains(out, "inet ") {
		t.Errorf("the container has an address without a lease: %s, %v", out, err)
	}
	if r := b.Record(); len(r.Addrs) > 0 && r.DHCP.Lost != "" {
		t.Errorf("the record has %v without a lease", r.Addrs)
	}
	d.WantLog("DHCPNAK(eth0) " + first.Addr.Addr().String())
	d.Stop()
	gw.ServeDHCP("192.168.50.200,192.168.50.210,120")
	testenv.Eventually(t, "another lease", func() error {
		if r := b.Record(); r.DHCP.Lost != "" || r.DHCP.Addr == first.Addr {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	out, err := c.Exec("ip", "-4", "addr", "show", "eth0")
	must(t, err)
	if r := b.Record(); !strings.Contains(out, r.DHCP.Addr.String()) || strings.Contains(out, first.Addr.String()) ||
		r.Addrs[0] != r.DHCP.Addr || b.held() != 1 {
		t.Errorf("the record has %v, lease %+v; %d are held; the container has %s", r.Addrs, r.DHCP, b.held(), out)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.DetachAndEnd("c1", c)
}

// TestDHCPServers checks with further servers that a container gets a lease, that the service renews it,
// and that the server has it back, if it logs that.
func TestDHCPServers(t *testing.T) {
	for name, x := range map[string]struct {
		serve    func(gw *testenv.Station) *testenv.DHCPServer
		released string // in its log
	}{
		"kea": {func(gw *testenv.Station) *testenv.DHCPServer {
			return gw.ServeKea("192.168.50.0/24", "192.168.50.100", "192.168.50.150", "192.168.50.1")
		}, "DHCP4_RELEASE "},
		"udhcpd": {func(gw *testenv.Station) *testenv.DHCPServer {
			return gw.ServeUdhcpd("192.168.50.100", "192.168.50.150", "192.168.50.1")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, d := lanDHCP(t, x.serve)
			c := testenv.NewContainer(t)
			b.MustAttach("c1", c, "network=web")
			first := *b.Record().DHCP
			testenv.Eventually(t, "a renewed lease", func() error {
				if r := b.Record(); r.DHCP.Expires <= first.Expires || r.DHCP.Lost != "" || r.DHCP.Addr != first.Addr {
					return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
				}
				return nil
			})
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
			b.DetachAndEnd("c1", c)
			d.WantLog(x.released)
		})
	}
}

// TestDHCPRefusedAtRenewal checks that the service gives a lease back if it refuses a change of it, and
// that the container gets one again when the server is corrected.
func TestDHCPRefusedAtRenewal(t *testing.T) {
	b, _, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web", "verify=strict")
	first := b.Record().Addrs[0].Addr().String()
	d.Change("routers 192.168.50.1;", "routers 192.168.50.77;") // which does not answer
	d.WantLog("DHCPRELEASE of " + first + " from ")
	if log := d.Log(); !strings.Contains(log, "(found)") {
		t.Errorf("the server did not have the lease: %s", log)
	}
	testenv.Eventually(t, "the loss in the record", func() error {
		if r := b.Record(); r.DHCP.Lost == "" || len(r.Addrs) > 0 {
			return fmt.Errorf("the record has %v, lease %+v", r.Addrs, r.DHCP)
		}
		return nil
	})
	d.Change("routers 192.168.50.77;", "routers 192.168.50.1;")
	testenv.Eventually(t, "a lease again", func() error {
		if r := b.Record(); r.DHCP.Lost != "" {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.DetachAndEnd("c1", c)
}

// TestDHCPJoinAfterLoss checks that no container joins an interface without an address, in mode warn
// either: a container without a lease does not start.
func TestDHCPJoinAfterLoss(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	d.Stop()
	d = gw.ServeDHCP("192.168.50.0,static") // which ends the lease, and has no address
	testenv.Eventually(t, "the loss in the record", func() error {
		if r := b.Record(); r.DHCP.Lost == "" || len(r.Addrs) > 0 {
			return fmt.Errorf("the record has %v, lease %+v", r.Addrs, r.DHCP)
		}
		return nil
	})
	next := testenv.JoinNamespace(t, c.Namespace)
	b.Refused("no address", b.Attach("c2", next, "network=web"), 1, "lease-lost", "has no address")
	d.Stop()
	gw.ServeDHCP("192.168.50.200,192.168.50.210,120")
	testenv.Eventually(t, "another lease", func() error {
		if r := b.Record(); r.DHCP.Lost != "" {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	b.MustAttach("c2", next, "network=web")
}

// TestDHCPSilent checks the verdict of a start without a server.
func TestDHCPSilent(t *testing.T) {
	b, _, d := lanDHCP(t, dnsmasq)
	before := b.Links(b.Host)
	d.Stop()
	b.Define("quick", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.ShareParent, d.Deadline = network.IPAMDHCP, true, network.Duration(1200*time.Millisecond)
	})
	c := testenv.NewContainer(t)
	b.Refused("no server", b.Attach("c1", c, "network=quick"), 1,
		"dhcp-silent: no DHCP server answered 2 requests within 1.",
		"the DHCP server")
	b.WantNothing("web", before)
}

// TestDHCPConfirmationLost checks that a lease goes back to the server if its confirmation did not arrive:
// the start fails, and the server counts the lease as given.
func TestDHCPConfirmationLost(t *testing.T) {
	b, gw, d := lanDHCP(t, dnsmasq)
	b.Define("quick", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.ShareParent, d.Deadline = network.IPAMDHCP, true, network.Duration(1200*time.Millisecond)
	})
	before := b.Links(b.Host)
	undo := gw.LoseACKs()
	c := testenv.NewContainer(t)
	b.Refused("a lost confirmation", b.Attach("c1", c, "network=quick"), 1, "and then confirms nothing")
	undo()
	d.WantLog("DHCPACK(eth0) 192.168.50.")
	d.WantLog("DHCPRELEASE(eth0) 192.168.50.")
	b.WantNothing("quick", before)
}

// TestDHCPOutside checks the verdict of a start with offers outside of the network's subnet.
func TestDHCPOutside(t *testing.T) {
	b, _, _ := lanDHCP(t, dnsmasq)
	b.Define("other", b.Trunk, func(d *network.Definition) {
		d.IPAM, d.ShareParent = network.IPAMDHCP, true
		d.Subnets = []network.Subnet{{Subnet: mustPrefix("10.50.0.0/16")}}
	})
	c := testenv.NewContainer(t)
	b.Refused("another subnet", b.Attach("c1", c, "network=other"), 1, "dhcp-wrong-vlan: ", "192.168.50.1", "10.50.0.0/16")
}

// TestDHCPGuarded checks that a rootless container has a lease, and that its guard permits nothing else.
func TestDHCPGuarded(t *testing.T) {
	b, _, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	r := b.Record()
	if r.Guard == nil || len(r.Guard.Addrs) != 1 || r.Guard.Addrs[0] != r.DHCP.Addr.Addr() {
		t.Fatalf("the guard permits %+v, the lease is %+v", r.Guard, r.DHCP)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	testenv.Eventually(t, "a renewed lease", func() error {
		if now := b.Record(); now.DHCP.Expires <= r.DHCP.Expires {
			return fmt.Errorf("the lease is %+v: %s", now.DHCP, b.logged())
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.detachAndEndBy(t, alice, "c1", c)
	d.WantLog("DHCPRELEASE of " + r.Addrs[0].Addr().String())
	b.wantNoGuards(t)
}

// TestDHCPGuardedMTU checks that a guarded container has the MTU of its lease, and that its guard passes frames
// of that size and no longer ones.
func TestDHCPGuardedMTU(t *testing.T) {
	b, _, _ := lanDHCP(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeDHCP("192.168.50.100,192.168.50.150,120", "--dhcp-option=26,1400")
	})
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	if r := b.Record(); r.MTU != 1400 || r.Guard.MTU != 1400 {
		t.Errorf("the record has MTU %d, the guard %+v", r.MTU, r.Guard)
	}
	out, err := c.Exec("ping", "-c1", "-W5", "-M", "do", "-s", "1372", "192.168.50.1")
	if err != nil {
		t.Errorf("a packet of 1400 bytes: %v: %s", err, out)
	}
	_, err = c.Exec("ip", "link", "set", "eth0", "mtu", "1500")
	must(t, err)
	if out, err := c.Exec("ping", "-c1", "-W1", "-M", "do", "-s", "1373", "192.168.50.1"); err == nil {
		t.Errorf("a packet of 1401 bytes was passed: %s", out)
	}
}

// TestDHCPGuardedRebuilt checks that the lease of a guarded container is renewed after the database was
// lost.
func TestDHCPGuardedRebuilt(t *testing.T) {
	b, _, _ := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	r := b.Record()
	b.LoseDatabase(false)
	testenv.Eventually(t, "a rebuilt lease", func() error {
		now := b.Record()
		if now.DHCP.Server != r.DHCP.Server || now.DHCP.Addr != r.DHCP.Addr || now.Guard.Outside != r.Guard.Outside ||
			now.Guard.Inside != r.Guard.Inside {
			return fmt.Errorf("the lease is %+v, the guard %+v: %s", now.DHCP, now.Guard, b.logged())
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}

// TestDHCPGuardedAgain checks that a guarded container gets a lease after a replacement of its lease
// has failed.
func TestDHCPGuardedAgain(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	first := b.Record()
	b.AddClaimant(0, "192.168.50.200/24")
	d.Stop()
	d = gw.ServeDHCP("192.168.50.200,192.168.50.200,120") // ends the lease, and offers an address in use
	testenv.Eventually(t, "a failed replacement", func() error {
		if r := b.Record(); !strings.Contains(r.DHCP.Lost, "192.168.50.") || !strings.Contains(b.logged(), "192.168.50.200") {
			return fmt.Errorf("the record has ifindex %d, guard %+v, lease %+v: %s", r.Index, r.Guard, r.DHCP, b.logged())
		}
		return nil
	})
	d.Stop()
	gw.ServeDHCP("192.168.50.210,192.168.50.220,120")
	testenv.Eventually(t, "another lease", func() error {
		if r := b.Record(); r.DHCP.Lost != "" || r.DHCP.Addr == first.DHCP.Addr {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.detachAndEndBy(t, alice, "c1", c)
	b.wantNoGuards(t)
}

// TestDHCPGuardedDeleted checks that the service asks for no other lease for a guarded container that has deleted
// its interface, and that the interface has one when it is created again.
func TestDHCPGuardedDeleted(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	first := b.Record()
	_, err := c.Exec("ip", "link", "del", "eth0")
	must(t, err)
	d.Stop()
	d = gw.ServeDHCP("192.168.50.200,192.168.50.210,120") // ends the lease, and offers others
	testenv.Eventually(t, "the loss of the lease", func() error {
		if r := b.Record(); r.DHCP.Lost == "" || !strings.Contains(b.logged(), "asked for no lease") {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, first.ID)
		return err
	}))
	if r := b.Record(); r.DHCP.Lost != "" || strings.Count(d.Log(), "DHCPACK") != 1 {
		t.Errorf("the lease is %+v: %s", r.DHCP, d.Log())
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.detachAndEndBy(t, alice, "c1", c)
	b.wantNoGuards(t)
}

// TestDHCPReattached checks that an interface whose lease was lost can be created again, with another
// lease.
func TestDHCPReattached(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	first := b.Record()
	d.Stop()
	d = gw.ServeDHCP("192.168.50.0,static") // ends the lease
	wantChange := func(code verify.Code) {
		t.Helper()
		testenv.Eventually(t, string(code), func() error {
			if list := b.changes(); len(list) != 1 || list[0].Code != code {
				return fmt.Errorf("the changes are %v: %s", list, b.logged())
			}
			return nil
		})
	}
	wantChange(verify.LeaseLost)
	_, err := c.Exec("ip", "link", "del", "eth0")
	must(t, err)
	wantChange(verify.InterfaceGone)
	d.Stop()
	gw.ServeDHCP("192.168.50.200,192.168.50.210,120")
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, first.ID)
		return err
	}))
	if r := b.Record(); r.DHCP == nil || r.DHCP.Lost != "" || r.DHCP.Addr == first.DHCP.Addr || len(b.changes()) > 0 {
		t.Errorf("the lease is %+v, the changes are %v", r.DHCP, b.changes())
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.DetachAndEnd("c1", c)
}

// TestDHCPHostAddress checks that a container loses its lease if this host has the address when the server
// changes the lease, that the server has the lease back, and that the container gets one again.
func TestDHCPHostAddress(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.100"))
	gw.AddAddr("192.168.50.7/24")
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	addr := b.Record().Addrs[0].Addr().String()
	must(t, b.Host.Sysctl("net/ipv4/conf/all/arp_ignore", "1")) // the server's answers go to the container
	_, err := b.Host.Exec("ip", "addr", "add", addr+"/32", "dev", "lo")
	must(t, err)
	d.Change("routers 192.168.50.1;", "routers 192.168.50.7;")
	testenv.Eventually(t, "the loss", func() error {
		if r := b.Record(); r.DHCP.Lost == "" || len(r.Addrs) > 0 {
			return fmt.Errorf("the record has %v, lease %+v: %s", r.Addrs, r.DHCP, b.logged())
		}
		return nil
	})
	if log := b.logged(); !strings.Contains(log, "offers address "+addr+", which is the ") {
		t.Errorf("the log does not name the reason: %s", log)
	}
	d.WantLog("DHCPRELEASE of " + addr)
	if out, err := c.Exec("ip", "-4", "addr", "show", "eth0"); err != nil || strings.Contains(out, "inet ") {
		t.Errorf("the container has the host's address: %s, %v", out, err)
	}
	_, err = b.Host.Exec("ip", "addr", "del", addr+"/32", "dev", "lo")
	must(t, err)
	testenv.Eventually(t, "a lease again", func() error {
		if r := b.Record(); r.DHCP.Lost != "" || fmt.Sprint(r.Gateways) != "[192.168.50.7]" {
			return fmt.Errorf("the record has %v, lease %+v: %s", r.Gateways, r.DHCP, b.logged())
		}
		return nil
	})
	b.DetachAndEnd("c1", c)
}

// TestDHCPDuplicateMAC checks that a start is refused, and no lease declined, if another station has the
// container's MAC: with each further lease, the container would have the same one.
func TestDHCPDuplicateMAC(t *testing.T) {
	b, _, d := lanDHCP(t, dnsmasq)
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	r := b.Record()
	b.DetachAndEnd("c1", c)
	b.AddClaimant(0, r.Addrs[0].String()).SetMAC(r.MAC)
	before := b.Links(b.Host)
	again := testenv.NewContainer(t)
	b.Refused("a duplicate MAC", b.Attach("c1", again, "network=web"), 1, "duplicate-mac: ", r.MAC.String())
	d.WantLog("DHCPRELEASE(eth0) " + r.Addrs[0].Addr().String())
	if log := d.Log(); strings.Contains(log, "DHCPDECLINE") {
		t.Errorf("a lease was declined: %s", log)
	}
	b.WantNothing("web", before)
}

// TestDHCPRebound checks that after T2 another server extends the lease of a server that is gone, and that
// the container keeps its address.
func TestDHCPRebound(t *testing.T) {
	const subnet, first, last, router = "192.168.50.0/24", "192.168.50.100", "192.168.50.150", "192.168.50.1"
	b, _, d := lanDHCP(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeKea(subnet, first, last, router)
	})
	d.Change(`"rebind-timer": 30`, `"rebind-timer": 6`)
	other := b.AddGateway(0, "192.168.50.2/24")
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	old := *b.Record().DHCP
	d.Stop()
	other.ServeKea(subnet, first, last, router)
	testenv.Eventually(t, "the other server", func() error {
		if r := b.Record(); r.DHCP.Server.String() != "192.168.50.2" {
			return fmt.Errorf("the lease is %+v: %s", r.DHCP, b.logged())
		}
		return nil
	})
	if r := b.Record(); r.DHCP.Addr != old.Addr || r.DHCP.ServerMAC != other.MAC || r.DHCP.Expires <= old.Expires ||
		strings.Contains(b.logged(), "lost its address") {
		t.Errorf("the lease was %+v and is %+v: %s", old, r.DHCP, b.logged())
	}
	hooklab.Pings(t, c.Namespace, router)
	b.DetachAndEnd("c1", c)
}
