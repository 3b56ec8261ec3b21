//go:build vm

package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// silent checks that an address does not answer from inside.
func silent(t *testing.T, n *testenv.Namespace, addr string) {
	t.Helper()
	if out, err := n.Exec("ping", "-n", "-c2", "-i0.2", "-W1", addr); err == nil {
		t.Errorf("%s answers %s: %s", addr, n.Name, out)
	}
}

// Containers of one network reach each other in mode bridge, not in mode
// private, and in mode vepa by a switch that sends frames back where they came
// from. All reach the gateway; nobody reaches the host.
func TestModesReach(t *testing.T) {
	for _, test := range []struct {
		mode    network.Mode
		hairpin bool
		reach   bool
	}{
		{network.ModeBridge, false, true}, {network.ModePrivate, false, false}, {network.ModePrivate, true, false},
		{network.ModeVEPA, false, false}, {network.ModeVEPA, true, true},
	} {
		t.Run(string(test.mode), func(t *testing.T) {
			w := newWorld(t, testenv.Config{VLANs: []uint16{50}})
			w.AddGateway(50, "192.168.50.1/24")
			if test.hairpin {
				_, err := w.Switch.Exec("bridge", "link", "set", "dev", "trunk", "hairpin", "on")
				must(t, err)
			}
			w.define("web", "eth9.50", func(d *network.Definition) { d.Mode = test.mode }, "192.168.50.0/24")
			ip(t, w.Host, "addr add 192.168.50.99/24 dev eth9.50")
			a, b := testenv.NewContainer(t), testenv.NewContainer(t)
			w.mustAttach("a", a, "network=web", "verify=strict")
			w.mustAttach("b", b, "network=web", "verify=strict")
			pings(t, a.Namespace, "192.168.50.1")
			if test.reach {
				pings(t, a.Namespace, "192.168.50.3")
			} else {
				silent(t, a.Namespace, "192.168.50.3")
			}
			if !test.hairpin {
				silent(t, a.Namespace, "192.168.50.99")
			}
		})
	}
}

// passthru gives one container the parent's MAC, and a second one nothing.
func TestPassthru(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{50}})
	w.AddGateway(50, "192.168.50.1/24")
	w.define("web", "eth9.50", func(d *network.Definition) { d.Mode = network.ModePassthru }, "192.168.50.0/24")
	c := testenv.NewContainer(t)
	w.mustAttach("c1", c, "network=web", "verify=strict")
	pings(t, c.Namespace, "192.168.50.1")
	l, err := w.Host.Netlink().LinkByName("eth9.50")
	must(t, err)
	if a := w.record(); a.MAC.String() != l.Attrs().HardwareAddr.String() {
		t.Errorf("MAC %s, the parent's is %s", a.MAC, l.Attrs().HardwareAddr)
	}
	w.refused("a second container", w.attach("c2", testenv.NewContainer(t), "network=web"), 1, "passthru")
	w.refused("another MAC", w.attach("c3", testenv.NewContainer(t), "network=web", "mac=02:00:00:00:00:01"), 1, "02:00:00:00:00:01 cannot be had")
}

// router is a station on a trunk port that routes between VLANs 10 and 20: a
// packet from one to the other goes in and out at the same port.
func router(t *testing.T, w *world) *testenv.Station {
	t.Helper()
	r := w.AddGateway(10)
	for _, vlan := range []string{"10", "20"} {
		_, err := w.Switch.Exec("bridge", "vlan", "add", "dev", r.Port, "vid", vlan)
		must(t, err)
		ip(t, r.Namespace, "link add link eth0 name eth0."+vlan+" type vlan id "+vlan)
		ip(t, r.Namespace, "link set eth0."+vlan+" up")
		ip(t, r.Namespace, "addr add 192.168."+vlan+".1/24 dev eth0."+vlan)
		ip(t, r.Namespace, "addr add fd"+vlan+"::1/64 dev eth0."+vlan+" nodad")
	}
	return r
}

// Across networks the way is by the outside router, and there is no other.
func TestRouterBetweenVLANs(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{10, 20}})
	r := router(t, w)
	w.define("ten", "eth9.10", nil, "192.168.10.0/24", "fd10::/64")
	w.define("twenty", "eth9.20", nil, "192.168.20.0/24", "fd20::/64")
	a, b := testenv.NewContainer(t), testenv.NewContainer(t)
	w.mustAttach("a", a, "network=ten", "verify=strict")
	w.mustAttach("b", b, "network=twenty", "verify=strict")
	silent(t, a.Namespace, "192.168.20.2")
	silent(t, a.Namespace, "fd20::2")
	must(t, r.Sysctl("net/ipv4/ip_forward", "1"))
	must(t, r.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	pings(t, a.Namespace, "192.168.20.2")
	pings(t, a.Namespace, "fd20::2")
	must(t, r.Sysctl("net/ipv4/ip_forward", "0"))
	silent(t, a.Namespace, "192.168.20.2")
}

// Two subnets on one VLAN reach each other by a router that answers for both.
func TestMultiSubnet(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{114}})
	r := w.AddGateway(114, "192.168.114.254/24", "192.168.116.254/24")
	must(t, r.Sysctl("net/ipv4/ip_forward", "1"))
	must(t, r.Sysctl("net/ipv4/conf/all/send_redirects", "0"))
	must(t, r.Sysctl("net/ipv4/conf/eth0/send_redirects", "0"))
	w.define("multi", "eth9.114", func(d *network.Definition) {
		for i := range d.Subnets {
			b := d.Subnets[i].Subnet.Addr().As4()
			b[3] = 254
			d.Subnets[i].Gateway = netip.AddrFrom4(b)
		}
	}, "192.168.114.0/24", "192.168.116.0/24")
	a, b := testenv.NewContainer(t), testenv.NewContainer(t)
	w.mustAttach("a", a, "network=multi", "ip=192.168.114.10", "verify=strict")
	w.mustAttach("b", b, "network=multi", "ip=192.168.116.10", "verify=strict")
	pings(t, a.Namespace, "192.168.116.10")
}

// ipvlan, for ports that take one MAC: containers reach the gateway and each
// other, with the parent's MAC; the verdict says what could not be seen.
func TestIPvlanL2(t *testing.T) {
	w := newWorld(t, testenv.Config{VLANs: []uint16{20}})
	gw := w.AddGateway(20, "192.168.20.1/24", "fd20::1/64")
	rival := w.AddRival(20, "192.168.20.3/24")
	before := w.links(w.Host)
	if err := w.ipvlan("web", "eth9.20", network.ModeL2, "192.168.20.0/24", "fd20::/64"); err == nil || !strings.Contains(err.Error(), "driver ipvlan sends with the MAC of parent") {
		t.Fatalf("not said that it cannot be watched: %v", err)
	}
	a, b := testenv.NewContainer(t), testenv.NewContainer(t)
	w.mustAttach("a", a, "network=web", "verify=strict")
	rec := w.record()
	if rec.Verdict.Code != verify.Unobserved || !strings.Contains(rec.Verdict.Text, "driver ipvlan sends with the MAC of parent") {
		t.Errorf("verdict %+v", rec.Verdict)
	}
	// The rival's address is passed over.
	w.mustAttach("b", b, "network=web", "verify=strict")
	if addrs := got(t, b); addrs[0] != "192.168.20.4/24" {
		t.Errorf("addresses %q beside the rival %s", addrs, rival.MAC)
	}
	for _, c := range []*testenv.Container{a, b} {
		pings(t, c.Namespace, "192.168.20.1")
		pings(t, c.Namespace, "fd20::1")
	}
	pings(t, a.Namespace, "192.168.20.4")
	out, err := gw.Exec("ip", "neigh", "show", "192.168.20.4")
	must(t, err)
	if !strings.Contains(out, rec.MAC.String()) {
		t.Errorf("the gateway knows %q, want %s", out, rec.MAC)
	}
	must(t, verifyAgain(w, rec))
	w.refused("a MAC of its own", w.attach("x", testenv.NewContainer(t), "network=web", "mac=02:00:00:00:00:01"), 1, "cannot be had")
	// A fast restart: the address is busy until the dead namespace is gone.
	must(t, a.Kill())
	w.mustDetach("a")
	a.End(t)
	again := testenv.NewContainer(t)
	w.mustAttach("a", again, "network=web", "ip=192.168.20.2")
	pings(t, again.Namespace, "192.168.20.1")
	w.detachAndEnd(t, "a", again)
	w.detachAndEnd(t, "b", b)
	w.wantNothing("web", append(before[:1:1], append([]string{"eth9.20"}, before[1:]...)...))
}

// ipvlan l3: two subnets on one parent reach each other by the host, with no
// gateway; the default route is the link.
func TestIPvlanL3(t *testing.T) {
	for _, mode := range []network.Mode{network.ModeL3, network.ModeL3S} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t, testenv.Config{})
			if err := w.ipvlan("web", "eth9", mode, "192.168.214.0/24", "10.1.214.0/24", "fd14::/64"); err == nil {
				t.Fatal("not said that it cannot be watched")
			}
			a, b := testenv.NewContainer(t), testenv.NewContainer(t)
			w.mustAttach("a", a, "network=web", "ip=192.168.214.10", "verify=strict")
			w.mustAttach("b", b, "network=web", "ip=10.1.214.10", "ip6=fd14::10", "verify=strict")
			if routes := routesOf(t, a, "-4"); !strings.HasPrefix(routes[0], "default dev eth0 scope link") {
				t.Errorf("routes %q", routes)
			}
			pings(t, a.Namespace, "10.1.214.10")
			pings(t, a.Namespace, "fd14::10")
		})
	}
}

// ipvlan defines a network of that driver, with the first address of each
// subnet for its gateway in mode l2. Its error says that it is not watched.
func (w *world) ipvlan(name, parent string, mode network.Mode, subnets ...string) error {
	w.tb.Helper()
	return w.tryDefine(name, parent, func(d *network.Definition) {
		d.Driver, d.Mode = network.DriverIPvlan, mode
		for i := range d.Subnets {
			if d.Routed() {
				d.Subnets[i].Gateway = netip.Addr{}
			}
		}
	}, subnets...)
}

// verifyAgain asks the gateways of an attachment once more.
func verifyAgain(w *world, a hook.Attachment) error {
	return w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		verdicts, err := l.Verify(ctx, a)
		for _, v := range verdicts {
			if !v.Code.Good() {
				err = errors.Join(err, errors.New(v.Text))
			}
		}
		return err
	})
}
