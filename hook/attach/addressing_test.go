package attach_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestPrefixes checks which addresses prefixes from one address to 2^64 give out: a /31
// (RFC 3021) and a /127 (RFC 6164) have two hosts and nothing else.
func TestPrefixes(t *testing.T) {
	for _, test := range []struct {
		subnet  string
		gateway string   // inferred where ""; "none": without a gateway
		want    []string // in the order given out; then the pool is full
	}{
		{"10.9.0.0/30", "", []string{"10.9.0.2/30"}},
		{"10.9.0.0/31", "", []string{"10.9.0.1/31"}},
		{"10.9.0.0/31", "none", []string{"10.9.0.0/31", "10.9.0.1/31"}},
		{"10.9.0.7/32", "none", []string{"10.9.0.7/32"}},
		{"fd09::/126", "", []string{"fd09::2/126", "fd09::3/126"}},
		{"2001:db8:9::/127", "", []string{"2001:db8:9::1/127"}},
		{"fd09::/127", "none", []string{"fd09::/127", "fd09::1/127"}},
	} {
		t.Run(test.subnet+" "+test.gateway, func(t *testing.T) {
			w := newWorld(t, testenv.Config{})
			w.create(test.subnet, test.gateway)
			for i, want := range test.want {
				c := testenv.NewContainer(t)
				w.MustAttach(fmt.Sprint("c", i), c, "network=web", "verify=warn")
				if addrs := hooklab.AddrsIn(t, c); len(addrs) != 1 || addrs[0] != want {
					t.Errorf("container %d has %q, want %q", i, addrs, want)
				}
			}
			w.Refused("one more than there are", w.Attach("more", testenv.NewContainer(t), "network=web"), 1,
				"no address is free")
		})
	}
}

// create defines "web" on the trunk with the command line's default gateway, and adds a
// station with that address.
func (w *world) create(subnet, gateway string) {
	w.TB.Helper()
	p := netip.MustParsePrefix(subnet)
	s := network.Subnet{Subnet: p}
	if gateway == "" {
		s.Gateway = p.Addr()
		if p.Addr().BitLen()-p.Bits() > 1 {
			s.Gateway = p.Addr().Next()
		}
		w.AddGateway(0, netip.PrefixFrom(s.Gateway, p.Bits()).String())
	}
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Subnets = []network.Subnet{s} })
}

// TestRanges checks that addresses are given out from the ranges only, from the first
// address upwards, without excluded addresses. A container may ask for an address
// outside.
func TestRanges(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.32.254/24")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Subnets = []network.Subnet{{
			Subnet: netip.MustParsePrefix("192.168.32.0/24"), Gateway: netip.MustParseAddr("192.168.32.254"),
			Ranges: []netip.Prefix{netip.MustParsePrefix("192.168.32.128/30"), netip.MustParsePrefix("192.168.32.16/31")},
			Aux:    map[string]netip.Addr{"my-router": netip.MustParseAddr("192.168.32.129")},
		}}
	})
	for i, want := range []string{"192.168.32.16/24", "192.168.32.17/24", "192.168.32.128/24", "192.168.32.130/24",
		"192.168.32.131/24"} {
		c := testenv.NewContainer(t)
		w.MustAttach(fmt.Sprint("c", i), c, "network=web")
		if addrs := hooklab.AddrsIn(t, c); len(addrs) != 1 || addrs[0] != want {
			t.Errorf("container %d has %q, want %q", i, addrs, want)
		}
	}
	w.Refused("one more", w.Attach("more", testenv.NewContainer(t), "network=web"), 1, "no address is free",
		"192.168.32.128/30")
	c := testenv.NewContainer(t)
	w.MustAttach("named", c, "network=web", "ip=192.168.32.40")
	w.Refused("the router's", w.Attach("bold", testenv.NewContainer(t), "network=web", "ip=192.168.32.129"), 1,
		`aux-address "my-router"`)
}

// TestSubnetByAddress checks that a requested address selects its subnet.
func TestSubnetByAddress(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.216.1/24", "192.168.218.1/24", "2001:db8:abc8::10/64")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Subnets = []network.Subnet{
			{Subnet: netip.MustParsePrefix("192.168.216.0/24"), Gateway: netip.MustParseAddr("192.168.216.1")},
			{Subnet: netip.MustParsePrefix("192.168.218.0/24"), Gateway: netip.MustParseAddr("192.168.218.1")},
			{Subnet: netip.MustParsePrefix("2001:db8:abc8::/64"), Gateway: netip.MustParseAddr("2001:db8:abc8::10")},
		}
	})
	for i, test := range []struct {
		ask  []string
		want string
	}{
		{nil, "192.168.216.2/24 2001:db8:abc8::1/64"},
		{[]string{"ip=192.168.218.10"}, "192.168.218.10/24 2001:db8:abc8::2/64"},
		{[]string{"ip=192.168.216.10", "ip6=2001:db8:abc8::50"}, "192.168.216.10/24 2001:db8:abc8::50/64"},
	} {
		c := testenv.NewContainer(t)
		w.MustAttach(fmt.Sprint("c", i), c, append([]string{"network=web", "verify=strict"}, test.ask...)...)
		if addrs := strings.Join(hooklab.AddrsIn(t, c), " "); addrs != test.want {
			t.Errorf("%q gives %q, want %q", test.ask, addrs, test.want)
		}
	}
	// They reach each other by the router, which answers for all.
	first := testenv.NewContainer(t)
	w.MustAttach("first", first, "network=web", "ip=192.168.218.77")
	hooklab.Pings(t, first.Namespace, "192.168.218.1")
	w.Refused("an address of no subnet", w.Attach("lost", testenv.NewContainer(t), "network=web", "ip=10.0.0.1"), 1,
		"10.0.0.1 is in none of its subnets")
}

// TestNoIPv6WithoutSubnet checks that a network without an IPv6 subnet has no IPv6 on the
// interface, except on loopback, and that the MTU is the parent's.
func TestNoIPv6WithoutSubnet(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	_, err := w.Host.Exec("ip", "link", "set", w.Trunk, "mtu", "1480")
	must(t, err)
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	out, err := c.Exec("ip", "addr")
	must(t, err)
	if strings.Count(out, "inet6") != 1 || !strings.Contains(out, "inet6 ::1/128") {
		t.Errorf("hooklab.Addresses: %s", out)
	}
	if !strings.Contains(out, "eth0@if") || !strings.Contains(out, "mtu 1480") {
		t.Errorf("eth0: %s", out)
	}
}

// TestGatewayOnLinkAndNone has a gateway on the link outside of the subnet, and no
// gateway.
func TestGatewayOnLinkAndNone(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	gw := w.AddGateway(0, "10.0.0.1/32", "fd00::1/128", "192.168.99.1/32")
	for _, to := range []string{"203.0.113.7/32", "2001:db8:1::7/128"} {
		_, err := gw.Exec("ip", "route", "add", to, "dev", testenv.NIC)
		must(t, err)
	}
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.OnLink = true
		d.Subnets = []network.Subnet{
			{Subnet: netip.MustParsePrefix("203.0.113.7/32"), Gateway: netip.MustParseAddr("10.0.0.1")},
			{Subnet: netip.MustParsePrefix("2001:db8:1::7/128"), Gateway: netip.MustParseAddr("fd00::1")},
		}
	})
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	hooklab.Pings(t, c.Namespace, "192.168.99.1")
	hooklab.Pings(t, c.Namespace, "fd00::1")
	w.DetachAndEnd("c1", c)
	w.RemoveNetwork("web")

	w.Define("none", w.Trunk, func(d *network.Definition) {
		d.Subnets = []network.Subnet{{Subnet: netip.MustParsePrefix("192.168.50.0/24")}}
	})
	c = testenv.NewContainer(t)
	w.MustAttach("c2", c, "network=none", "verify=strict")
	if routes := hooklab.RoutesIn(t, c, "-4"); len(routes) != 1 ||
		!strings.HasPrefix(routes[0], "192.168.50.0/24 dev eth0") {
		t.Errorf("routes without a gateway: %q", routes)
	}
}

// TestExtraRoutes has additional routes by routers on the link.
func TestExtraRoutes(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	w.AddGateway(0, "192.168.50.254/24", "10.20.0.1/16", "fd50::fe/64", "fd20::1/64")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Routes = []network.Route{
			{Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.168.50.254")},
			{Dst: netip.MustParsePrefix("fd20::/64"), Via: netip.MustParseAddr("fd50::fe")},
		}
	}, "192.168.50.0/24", "fd50::/64")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	hooklab.Pings(t, c.Namespace, "10.20.0.1")
	hooklab.Pings(t, c.Namespace, "fd20::1")
}

// TestNoAddresses attaches without hooklab.Addresses: the workload gets one from a router.
func TestNoAddresses(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	gw := w.AddGateway(0, "192.168.50.1/24")
	before := w.Links(w.Host)
	w.Define("web", w.Trunk, func(d *network.Definition) { d.IPAM = network.IPAMNone })
	w.Refused("an address", w.Attach("c0", testenv.NewContainer(t), "network=web", "ip=192.168.50.9"), 1,
		"the network assigns no addresses")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	a := w.Record()
	if a.Verdict.Code != verify.Unverified || len(a.Addrs) != 0 {
		t.Errorf("record is %+v", a)
	}
	// The workload configures an address, and the LAN sees frames from its MAC.
	_, err := c.Exec("ip", "addr", "add", "192.168.50.77/24", "dev", "eth0")
	must(t, err)
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	out, err := gw.Exec("ip", "neigh", "show", "192.168.50.77")
	must(t, err)
	if !strings.Contains(out, a.MAC.String()) {
		t.Errorf("the gateway knows %q, want %s", out, a.MAC)
	}
	if ra, err := c.Exec("cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra",
		"/proc/sys/net/ipv6/conf/eth0/disable_ipv6"); err != nil || ra != "1\n0\n" {
		t.Errorf("accept_ra and disable_ipv6 are %q, %v", ra, err)
	}
	w.DetachAndEnd("c1", c)
	// The same container has the same MAC again, so that a DHCP server finds its lease.
	c = testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	if again := w.Record(); again.MAC != a.MAC {
		t.Errorf("MAC %s, and %s before", again.MAC, a.MAC)
	}
	w.DetachAndEnd("c1", c)
	w.WantNothing("web", before)
}

// TestStableAddresses checks that the same name gets the same address, also in a new
// container, unless another container uses it by then.
func TestStableAddresses(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "10.50.0.1/16")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Allocate = network.AllocateStable }, "10.50.0.0/16")
	addrs := map[string]string{}
	for round := range 2 {
		for _, id := range []string{"a", "b", "c"} {
			c := testenv.NewContainer(t)
			w.MustAttach(id, c, "network=web")
			addr := strings.Join(hooklab.AddrsIn(t, c), " ")
			if round > 0 && addrs[id] != addr {
				t.Errorf("container %s has %s, and had %s", id, addr, addrs[id])
			}
			addrs[id] = addr
			w.DetachAndEnd(id, c)
		}
	}
	if addrs["a"] == addrs["b"] || addrs["b"] == addrs["c"] || addrs["a"] == addrs["c"] {
		t.Errorf("not three hooklab.Addresses: %v", addrs)
	}
}

// TestRestartWithAddress checks that a container that asks for its address by name gets it
// right after a restart, and so does a container that replaces it with another id, as with
// podman run --replace, compose and Quadlet. A container that asks for no address does not
// get it.
func TestRestartWithAddress(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Quarantine = network.Duration(1e12) }, "192.168.50.8/29")
	w.AddGateway(0, "192.168.50.9/29")
	for _, id := range []string{"c1", "c1", "c2"} {
		c := testenv.NewContainer(t)
		w.MustAttach(id, c, "network=web", "ip=192.168.50.10")
		w.DetachAndEnd(id, c)
	}
	c := testenv.NewContainer(t)
	w.MustAttach("c3", c, "network=web")
	if addr := w.Record().Addrs[0].Addr().String(); addr != "192.168.50.11" {
		t.Errorf("the next container has %s, want 192.168.50.11", addr)
	}
}

// TestAnnouncements checks that a new address is announced three times.
func TestAnnouncements(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	gw := w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	heard := hooklab.Listen(t, gw.Namespace, testenv.NIC, "192.168.50.2", "fd50::2")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24", "fd50::/64")
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	heard.WantThree(t)
}

// TestInternalOfBothFamilies checks the verdict of a container with an address of each family and no
// gateway: the trunk sees a question for each.
func TestInternalOfBothFamilies(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Internal = true }, "192.168.50.0/24", "fd50::/64")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	if r := w.Record(); len(r.Verdicts) != 2 || r.Verdict.Code != verify.OK {
		t.Errorf("the verdicts are %v", r.Verdicts)
	}
}
