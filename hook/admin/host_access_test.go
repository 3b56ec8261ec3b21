package admin_test

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
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

func hostAccess(d *network.Definition) { d.HostAccess = true }

// TestHostAccess checks that host and containers reach each other by the host's link, and
// that other traffic of the host is unchanged. The routes are removed with the container,
// and the link with the network.
func TestHostAccess(t *testing.T) {
	w := hooklab.New(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	before := w.Links(w.Host)
	// The host itself is on this LAN, with the address that would be given out first.
	_, err := w.Host.Exec("ip", "addr", "add", "192.168.50.2/24", "dev", w.Trunk)
	must(t, err)
	w.Define("web", w.Trunk, hostAccess, "192.168.50.0/24", "fd50::/64")
	def := w.Definition("web")
	if got := joinAddrs(def.HostAddresses); got != "192.168.50.3 fd50::2" {
		t.Errorf("the host has %s", got)
	}
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9", "ip6=fd50::9", "verify=strict")
	for from, to := range map[*testenv.Namespace][]string{
		w.Host:      {"192.168.50.9", "fd50::9", "192.168.50.1"},
		c.Namespace: {"192.168.50.3", "fd50::2", "192.168.50.1"},
	} {
		for _, addr := range to {
			hooklab.Pings(t, from, addr)
		}
	}
	w.WantHostRoutes(def.HostLink(), "192.168.50.9", "fd50::9")
	if out, err := w.Host.Exec("ip", "route", "get", "192.168.50.1"); err != nil ||
		!strings.Contains(out, "dev "+w.Trunk+" src 192.168.50.2") {
		t.Errorf("the host's way to the gateway: %s, %v", out, err)
	}
	w.Refused("the host's address", w.Attach("c2", testenv.NewContainer(t), "network=web", "ip=192.168.50.3"), 1,
		"192.168.50.3 is reserved: it is the host's own")
	w.WantNoUnleased()
	w.DetachAndEnd("c1", c)
	w.WantHostRoutes(def.HostLink())
	if links := w.Links(w.Host); !slices.Contains(links, def.HostLink()) {
		t.Errorf("links of the host: %q", links)
	}
	w.RemoveNetwork("web")
	if links := w.Links(w.Host); !slices.Equal(links, before) {
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

// TestHostAccessConflict checks that an address in use on the LAN is not chosen for the
// host, and refused if it was named. An address that the host has on another link is
// refused. Nothing is left.
func TestHostAccessConflict(t *testing.T) {
	w := hooklab.New(t, testenv.Config{})
	claimant := w.AddClaimant(0, "192.168.50.2/24", "fd50::2/64")
	before := w.Links(w.Host)
	named := func(addr string) func(*network.Definition) {
		return func(d *network.Definition) {
			d.HostAccess, d.HostAddresses = true, []netip.Addr{netip.MustParseAddr(addr)}
		}
	}
	if err := w.TryDefine("web", w.Trunk, named("192.168.50.2"), "192.168.50.0/24"); err == nil ||
		err.Error() != "--host-address 192.168.50.2: station "+claimant.MAC.String()+" on the LAN has it: choose another" {
		t.Errorf("a claimant's: %v", err)
	}
	_, err := w.Host.Exec("ip", "addr", "add", "192.168.50.77/24", "dev", w.Trunk)
	must(t, err)
	if err := w.TryDefine("web", w.Trunk, named("192.168.50.77"), "192.168.50.0/24"); err == nil ||
		!strings.Contains(err.Error(), "192.168.50.77: another link of the host has it") {
		t.Errorf("the host's: %v", err)
	}
	if links := w.Links(w.Host); !slices.Equal(links, before) {
		t.Errorf("links of the host: %q, want %q", links, before)
	}
	w.Define("web", w.Trunk, hostAccess, "192.168.50.0/24", "fd50::/64")
	if got := joinAddrs(w.Definition("web").HostAddresses); got != "192.168.50.3 fd50::3" {
		t.Errorf("the host has %s", got)
	}
}

// TestHostLinkLost checks that the next attach creates a lost host link again, with the
// routes to attached containers, and completes one after an interrupted creation.
func TestHostLinkLost(t *testing.T) {
	w, _ := hooklab.NewLAN(t, hostAccess)
	def := w.Definition("web")
	one, two := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("one", one, "network=web", "ip=192.168.50.11", "ip6=fd50::11")
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
	w.MustAttach("two", two, "network=web", "ip=192.168.50.12", "ip6=fd50::12")
	hooklab.Pings(t, w.Host, "192.168.50.12")
	_, err = w.Host.Exec("ip", "link", "del", def.HostLink())
	must(t, err)
	if rows := w.Restore(); len(rows) != 1 || rows[0].Err != nil {
		t.Errorf("restored: %+v", rows)
	}
	for _, addr := range []string{"192.168.50.11", "192.168.50.12", "fd50::11", "fd50::12"} {
		hooklab.Pings(t, w.Host, addr)
	}
	// Another link with that name is not changed, and named in the error.
	for _, args := range []string{"link del " + def.HostLink(),
		"link add " + def.HostLink() + " type veth peer name other"} {
		_, err := w.Host.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	w.Refused("another's link", w.Attach("three", testenv.NewContainer(t), "network=web"), 1, def.HostLink(),
		`of type "veth"`)
}

// TestHostRouteTaken checks that a foreign route to the same address stops the start, and
// stays.
func TestHostRouteTaken(t *testing.T) {
	w, _ := hooklab.NewLAN(t, hostAccess)
	_, err := w.Host.Exec("ip", "route", "add", "192.168.50.9/32", "dev", w.Trunk)
	must(t, err)
	c := testenv.NewContainer(t)
	w.Refused("a route that is there", w.Attach("c1", c, "network=web", "ip=192.168.50.9"), 1,
		"route the host to 192.168.50.9", `through "`+w.Trunk+`"`)
	if out, err := w.Host.Exec("ip", "route", "show", "192.168.50.9"); err != nil ||
		!strings.Contains(out, "dev "+w.Trunk) {
		t.Errorf("the route is %q, %v", out, err)
	}
	w.WantHostRoutes(w.Definition("web").HostLink())
}

// TestHostAccessGuarded checks that the guard of the parent passes frames of the host's
// own link, and does not count them as frames of an unleased MAC.
func TestHostAccessGuarded(t *testing.T) {
	w, _ := hooklab.NewLAN(t, func(d *network.Definition) { d.HostAccess, d.Guard = true, network.On })
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	for _, addr := range []string{"192.168.50.9", "fd50::9"} {
		hooklab.Pings(t, w.Host, addr)
	}
	for _, a := range w.Definition("web").HostAddresses {
		hooklab.Pings(t, c.Namespace, a.String())
	}
	w.WantNoUnleased()
}

// TestHostAccessRebuilt checks that the host's routes and their containers are restored
// when the database is lost.
func TestHostAccessRebuilt(t *testing.T) {
	w, _ := hooklab.NewLAN(t, hostAccess)
	def := w.Definition("web")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9", "ip6=fd50::9")
	must(t, os.Remove(filepath.Join(w.Paths().Run, "lanyard.db")))
	if a := w.Record(); a.HostLink != def.HostLink() || a.Verdict.Code != verify.Unverified {
		t.Errorf("record is %+v", a)
	}
	must(t, c.Kill())
	c.End(t)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	}))
	w.WantHostRoutes(def.HostLink())
}

// TestHostAccessRenamed removes a network after the administrator's parent was renamed: the host's
// link, its address and the guard go with the network.
func TestHostAccessRenamed(t *testing.T) {
	w, _ := hooklab.NewLAN(t, func(d *network.Definition) { d.HostAccess, d.Guard = true, network.On })
	before := w.Links(w.Host)
	for _, args := range [][]string{{"set", "eth9", "down"}, {"set", "eth9", "name", "lan9"}, {"set", "lan9", "up"}} {
		_, err := w.Host.Exec("ip", append([]string{"link"}, args...)...)
		must(t, err)
	}
	w.RemoveNetwork("web")
	if links := w.Links(w.Host); len(links) != len(before)-1 ||
		slices.ContainsFunc(links, func(l string) bool { return strings.HasPrefix(l, "ly-") }) {
		t.Errorf("links are %q, and were %q", links, before)
	}
	out, err := w.Host.Exec("tc", "filter", "show", "dev", "lan9", "egress")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("filters on the parent: %q, %v", out, err)
	}
}
