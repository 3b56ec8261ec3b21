package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

func hostAccess(d *network.Definition) { d.HostAccess = true }

// definition returns the stored definition of the network.
func (w *world) definition(name string) *network.Definition {
	w.tb.Helper()
	d, err := network.Load(wiring.PathsUnder(w.root).Networks, name)
	must(w.tb, err)
	return d
}

// hostRoutes lists the host's routes by a link, without those that the kernel
// made.
func (w *world) hostRoutes(link string) (to []string) {
	w.tb.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := w.Host.Exec("ip", family, "route", "show", "dev", link)
		must(w.tb, err)
		for line := range strings.Lines(out) {
			if !strings.Contains(line, "proto kernel") {
				to = append(to, strings.Fields(line)[0])
			}
		}
	}
	return to
}

// wantHostRoutes checks the host's routes by a link.
func (w *world) wantHostRoutes(link string, want ...string) {
	w.tb.Helper()
	if to := w.hostRoutes(link); !slices.Equal(to, want) {
		w.tb.Errorf("the host's routes by %s are %q, want %q", link, to, want)
	}
}

// TestHostAccess checks that host and containers reach each other by the host's link, and
// that other traffic of the host is unchanged. The routes are removed with the container,
// and the link with the network.
func TestHostAccess(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	before := w.links(w.Host)
	// The host itself is on this LAN, with the address that would be given out first.
	_, err := w.Host.Exec("ip", "addr", "add", "192.168.50.2/24", "dev", w.Trunk)
	must(t, err)
	w.define("web", w.Trunk, hostAccess, "192.168.50.0/24", "fd50::/64")
	def := w.definition("web")
	if got := joinAddrs(def.HostAddresses); got != "192.168.50.3 fd50::2" {
		t.Errorf("the host has %s", got)
	}
	c := testenv.NewContainer(t)
	w.mustAttach("c1", c, "network=web", "ip=192.168.50.9", "ip6=fd50::9", "verify=strict")
	for from, to := range map[*testenv.Namespace][]string{
		w.Host:      {"192.168.50.9", "fd50::9", "192.168.50.1"},
		c.Namespace: {"192.168.50.3", "fd50::2", "192.168.50.1"},
	} {
		for _, addr := range to {
			pings(t, from, addr)
		}
	}
	w.wantHostRoutes(def.HostLink(), "192.168.50.9", "fd50::9")
	if out, err := w.Host.Exec("ip", "route", "get", "192.168.50.1"); err != nil ||
		!strings.Contains(out, "dev "+w.Trunk+" src 192.168.50.2") {
		t.Errorf("the host's way to the gateway: %s, %v", out, err)
	}
	w.refused("the host's address", w.attach("c2", testenv.NewContainer(t), "network=web", "ip=192.168.50.3"), 1,
		"192.168.50.3 is reserved: it is the host's own")
	w.wantNoStrangers()
	w.detachAndEnd(t, "c1", c)
	w.wantHostRoutes(def.HostLink())
	if links := w.links(w.Host); !slices.Contains(links, def.HostLink()) {
		t.Errorf("links of the host: %q", links)
	}
	w.removeNetwork("web")
	if links := w.links(w.Host); !slices.Equal(links, before) {
		t.Errorf("links of the host: %q, want %q", links, before)
	}
}

func joinAddrs(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

// wantNoStrangers checks that the parents have no unleased MACs.
func (w *world) wantNoStrangers() {
	w.tb.Helper()
	must(w.tb, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		found, _ := l.Audit(ctx)
		for _, a := range found {
			if len(a.Unleased)+len(a.Dropped) > 0 || a.Err != nil {
				w.tb.Errorf("strangers on %s: %v, stopped %v, %v", a.Parent, a.Unleased, a.Dropped, a.Err)
			}
		}
		return nil
	}))
}

// TestHostAccessConflict checks that an address in use on the LAN is not chosen for the
// host, and refused if it was named. An address that the host has on another link is
// refused. Nothing is left.
func TestHostAccessConflict(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	claimant := w.AddClaimant(0, "192.168.50.2/24", "fd50::2/64")
	before := w.links(w.Host)
	named := func(addr string) func(*network.Definition) {
		return func(d *network.Definition) {
			d.HostAccess, d.HostAddresses = true, []netip.Addr{netip.MustParseAddr(addr)}
		}
	}
	if err := w.tryDefine("web", w.Trunk, named("192.168.50.2"), "192.168.50.0/24"); err == nil ||
		err.Error() != "--host-address 192.168.50.2: station "+claimant.MAC.String()+" on the LAN has it: choose another" {
		t.Errorf("a claimant's: %v", err)
	}
	_, err := w.Host.Exec("ip", "addr", "add", "192.168.50.77/24", "dev", w.Trunk)
	must(t, err)
	if err := w.tryDefine("web", w.Trunk, named("192.168.50.77"), "192.168.50.0/24"); err == nil ||
		!strings.Contains(err.Error(), "192.168.50.77: another link of the host has it") {
		t.Errorf("the host's: %v", err)
	}
	if links := w.links(w.Host); !slices.Equal(links, before) {
		t.Errorf("links of the host: %q, want %q", links, before)
	}
	w.define("web", w.Trunk, hostAccess, "192.168.50.0/24", "fd50::/64")
	if got := joinAddrs(w.definition("web").HostAddresses); got != "192.168.50.3 fd50::3" {
		t.Errorf("the host has %s", got)
	}
}

// TestHostLinkLost checks that the next attach creates a lost host link again, with the
// routes to attached containers, and completes one whose creation was interrupted.
func TestHostLinkLost(t *testing.T) {
	w, _ := lan(t, hostAccess)
	def := w.definition("web")
	one, two := testenv.NewContainer(t), testenv.NewContainer(t)
	w.mustAttach("one", one, "network=web", "ip=192.168.50.11", "ip6=fd50::11")
	l, err := w.Host.Netlink().LinkByName(def.HostLink())
	must(t, err)
	mac := l.Attrs().HardwareAddr.String()
	for _, args := range []string{
		"link del " + def.HostLink(),
		// The process is killed here.
		"link add " + def.HostLink() + " link " + w.Trunk + " address " + mac + " type macvlan mode bridge",
	} {
		_, err := w.Host.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	w.mustAttach("two", two, "network=web", "ip=192.168.50.12", "ip6=fd50::12")
	pings(t, w.Host, "192.168.50.12")
	_, err = w.Host.Exec("ip", "link", "del", def.HostLink())
	must(t, err)
	if rows := w.restore(); len(rows) != 1 || rows[0].Err != nil {
		t.Errorf("restored: %+v", rows)
	}
	for _, addr := range []string{"192.168.50.11", "192.168.50.12", "fd50::11", "fd50::12"} {
		pings(t, w.Host, addr)
	}
	// Another link with that name is not changed, and named in the error.
	for _, args := range []string{"link del " + def.HostLink(),
		"link add " + def.HostLink() + " type veth peer name other"} {
		_, err := w.Host.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	w.refused("another's link", w.attach("three", testenv.NewContainer(t), "network=web"), 1, def.HostLink(),
		`of type "veth"`)
}

// TestHostRouteTaken checks that a foreign route to the same address stops the start, and
// stays.
func TestHostRouteTaken(t *testing.T) {
	w, _ := lan(t, hostAccess)
	_, err := w.Host.Exec("ip", "route", "add", "192.168.50.9/32", "dev", w.Trunk)
	must(t, err)
	c := testenv.NewContainer(t)
	w.refused("a route that is there", w.attach("c1", c, "network=web", "ip=192.168.50.9"), 1,
		"route the host to 192.168.50.9", `through "`+w.Trunk+`"`)
	if out, err := w.Host.Exec("ip", "route", "show", "192.168.50.9"); err != nil ||
		!strings.Contains(out, "dev "+w.Trunk) {
		t.Errorf("the route is %q, %v", out, err)
	}
	w.wantHostRoutes(w.definition("web").HostLink())
}

// TestHostAccessGuarded checks that the guard of the parent passes frames of the host's
// own link, and does not count them as frames of an unleased MAC.
func TestHostAccessGuarded(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.HostAccess, d.Guard = true, network.On })
	c := testenv.NewContainer(t)
	w.mustAttach("c1", c, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	for _, addr := range []string{"192.168.50.9", "fd50::9"} {
		pings(t, w.Host, addr)
	}
	for _, a := range w.definition("web").HostAddresses {
		pings(t, c.Namespace, a.String())
	}
	w.wantNoStrangers()
}

// TestHostAccessRootless checks that the host reaches a guarded container.
func TestHostAccessRootless(t *testing.T) {
	b, _ := lanBrokered(t, hostAccess)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	for _, addr := range []string{"192.168.50.9", "fd50::9"} {
		pings(t, b.Host, addr)
	}
	for _, a := range b.definition("web").HostAddresses {
		pings(t, c.Namespace, a.String())
	}
	b.wantNoStrangers()
	must(t, c.Kill())
	b.mustDetachBy(alice, "c1")
	b.wantHostRoutes(b.definition("web").HostLink())
}

// TestHostAccessRebuilt checks that the host's routes and their containers are restored
// when the database is lost.
func TestHostAccessRebuilt(t *testing.T) {
	w, _ := lan(t, hostAccess)
	def := w.definition("web")
	c := testenv.NewContainer(t)
	w.mustAttach("c1", c, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	must(t, os.Remove(filepath.Join(wiring.PathsUnder(w.root).Run, "lanyard.db")))
	if a := w.record(); a.HostLink != def.HostLink() || a.Verdict.Code != verify.Unverified {
		t.Errorf("record is %+v", a)
	}
	must(t, c.Kill())
	c.End(t)
	must(t, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	}))
	w.wantHostRoutes(def.HostLink())
}

// TestHostAccessRenamed removes a network after the administrator's parent was renamed: the host's
// link, its address and the guard go with the network.
func TestHostAccessRenamed(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.HostAccess, d.Guard = true, network.On })
	before := w.links(w.Host)
	for _, args := range [][]string{{"set", "eth9", "down"}, {"set", "eth9", "name", "lan9"}, {"set", "lan9", "up"}} {
		_, err := w.Host.Exec("ip", append([]string{"link"}, args...)...)
		must(t, err)
	}
	w.removeNetwork("web")
	if links := w.links(w.Host); len(links) != len(before)-1 || slices.ContainsFunc(links, func(l string) bool { return strings.HasPrefix(l, "ly-") }) {
		t.Errorf("links are %q, and were %q", links, before)
	}
	out, err := w.Host.Exec("tc", "filter", "show", "dev", "lan9", "egress")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("filters on the parent: %q, %v", out, err)
	}
}
