package attach_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// newSLAAC makes a lab with network "web" of leased IPv4 addresses and IPv6 addresses from routers.
func newSLAAC(t *testing.T, edit func(*network.Definition)) (*world, *testenv.Station) {
	t.Helper()
	w := newWorld(t, testenv.Config{})
	gw := w.AddGateway(0, "192.168.50.1/24", "fd77::1/64", "2001:db8:f::9/128")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.IPv6Mode = network.IPv6SLAAC
		if edit != nil {
			edit(d)
		}
	}, "192.168.50.0/24")
	return w, gw
}

// now returns what the interface of the only attachment has become.
func (w *world) now() (now attach.Now) {
	w.TB.Helper()
	a := w.Record()
	must(w.TB, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		all, err := l.Now([]hook.Attachment{a})
		now = all[a.ID]
		return err
	}))
	return now
}

// inPrefix returns the address of a MAC in a prefix of 64 bits.
func inPrefix(prefix string, a hook.Attachment) netip.Prefix {
	p, host := netip.MustParsePrefix(prefix), a.MAC.LinkLocal().As16()
	b := p.Addr().As16()
	copy(b[8:], host[8:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// TestSLAACRenumbered checks that a container starts with a usable address and the router's default
// route, and that both follow the router. The container forwards packets, which a host does not.
func TestSLAACRenumbered(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	const lasting = "AdvValidLifetime 600; AdvPreferredLifetime 500;"
	radvd := gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { " + lasting + " };")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict", "sysctl.net.ipv6.conf.IFNAME.forwarding=1")
	hooklab.Pings(t, c.Namespace, "2001:db8:f::9") // by the router, at once
	a := w.Record()
	old := inPrefix("fd77::/64", a)
	router := gw.MAC.LinkLocal()
	if len(a.Addrs) != 1 || a.SLAAC == nil || !a.SLAAC.Default || len(a.Verdicts) != 2 || a.Verdict.Code != verify.OK ||
		a.Verdicts[1].Gateway != router || a.Verdicts[1].MAC != gw.MAC ||
		!strings.Contains(a.Verdicts[1].Text, "gave "+old.String()+"; router "+router.String()) {
		t.Errorf("the record is %+v", a)
	}
	if now := w.now(); len(now.Changes) > 0 || len(now.Auto) != 1 || now.Auto[0].Addr != old ||
		now.Auto[0].State != verify.AutoUsable || now.Auto[0].Valid <= 0 || now.Auto[0].Preferred > 500*time.Second {
		t.Errorf("now: %+v", now)
	}

	_, err := gw.Exec("ip", "addr", "add", "fd78::1/64", "dev", testenv.NIC)
	must(t, err)
	radvd.Change("AdvDefaultLifetime 60; prefix fd77::/64 { AdvValidLifetime 600; AdvPreferredLifetime 0; }; " +
		"prefix fd78::/64 { " + lasting + " };")
	testenv.Eventually(t, "the other prefix", func() error {
		now := w.now()
		text := verify.AutoText(now.Auto)
		if want := fmt.Sprintf("%s, %s (deprecated)", inPrefix("fd78::/64", a), old); text != want || len(now.Changes) > 0 {
			return fmt.Errorf("it has %s, changes %v; want %s", text, now.Changes, want)
		}
		return nil
	})
	hooklab.Pings(t, c.Namespace, "fd78::1")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		verdicts, err := l.Verify(ctx, a)
		if len(verdicts) != 2 || verdicts[1].Code != verify.OK || !strings.Contains(verdicts[1].Text, "fd78::") {
			t.Errorf("verified again: %v", verdicts)
		}
		return err
	}))

	// The addresses of routers are no leases.
	w.LoseDatabase(false)
	testenv.Eventually(t, "a rebuilt record", func() error {
		if r := w.Record(); !slices.Equal(r.Addrs, a.Addrs) || r.SLAAC == nil || !r.SLAAC.Default ||
			len(r.Defaults) != 1 || len(w.now().Changes) > 0 {
			return fmt.Errorf("it is %+v", r)
		}
		return nil
	})
	w.DetachAndEnd("c1", c)
}

// TestNoRouter checks the verdicts on routers that give no address, or no default route.
func TestNoRouter(t *testing.T) {
	w, gw := newSLAAC(t, func(d *network.Definition) { d.Deadline = network.Duration(3 * time.Second) })
	before := w.Links(w.Host)
	var radvd *testenv.Radvd
	for _, test := range []struct {
		statements string // "": no router
		want       []string
	}{
		{"", []string{"no router advertised itself (RA) within 3", "though it is alive"}},
		{"prefix fd77::/64 { AdvAutonomous off; };", []string{"fd77::/64 without the autonomous flag"}},
		{"AdvDefaultLifetime 0; prefix fd77::/64 { };",
			[]string{"gave fd77::", "no router gave a default route within 3", "which is no default router (lifetime 0)"}},
	} {
		switch {
		case radvd != nil:
			radvd.Change(test.statements)
		case test.statements != "":
			radvd = gw.ServeRadvd(test.statements)
		}
		c := testenv.NewContainer(t)
		w.Refused(test.statements, w.Attach("c1", c, "network=web", "verify=strict"), 1,
			append(test.want, "no-router: ")...)
		w.WantNothing("web", before)
	}
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	if v := w.Record().Verdict; v.Code != verify.NoRouter {
		t.Errorf("in mode warn, the verdict is %v", v)
	}
	a := w.Record()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		ctx, cancel := context.WithTimeout(ctx, 2500*time.Millisecond) // less than the network's deadline
		defer cancel()
		verdicts, err := l.Verify(ctx, a)
		if len(verdicts) != 2 || verdicts[1].Code != verify.NoRouter {
			t.Errorf("verified in less than the deadline: %v", verdicts)
		}
		return err
	}))
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}

// TestThousandPrefixes checks that a station that advertises a thousand prefixes does not fill the
// record, the lists and the verdict.
func TestThousandPrefixes(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	done := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		for i := 0; ; i = (i + 1) % 1000 {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				if err := gw.Advertise(netip.MustParsePrefix(fmt.Sprintf("fd77:0:0:%x::/64", i))); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	defer flood.Wait()
	defer close(done)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	testenv.Eventually(t, "as many addresses as the kernel configures", func() error {
		if now := w.now(); len(now.Auto) < 14 || len(now.Auto) > 16 || len(now.Changes) > 0 {
			return fmt.Errorf("%d addresses, changes %v", len(now.Auto), now.Changes)
		}
		return nil
	})
	if v := w.Record().Verdicts[1]; len(v.Text) > 500 || v.Code != verify.OK {
		t.Errorf("the verdict is %v", v)
	}
}

// TestSLAACDefaultRoute checks that the routers' default route obeys the rules of other default routes.
func TestSLAACDefaultRoute(t *testing.T) {
	w, gw := newSLAAC(t, func(d *network.Definition) { d.ShareParent = true })
	w.Define("inside", w.Trunk, func(d *network.Definition) {
		d.IPv6Mode, d.ShareParent, d.Internal = network.IPv6SLAAC, true, true
	}, "192.168.52.0/24")
	w.Define("both", w.Trunk, func(d *network.Definition) {
		d.IPv6Mode, d.ShareParent = network.IPv6Both, true
	}, "192.168.51.0/24", "fd77::/64")
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	routed := func(c *testenv.Container) string {
		return strings.Join(hooklab.RoutesIn(t, c, "-6", "default"), "; ")
	}
	engine := func(c *testenv.Container) {
		for _, line := range []string{"link add eng type veth peer name eng2", "link set eng up", "link set eng2 up",
			"addr add fd99::2/64 dev eng nodad",
			"route add default via fd99::1 dev eng metric 100"} {
			hooklab.IP(t, c.Namespace, line)
		}
	}
	for _, test := range []struct {
		network, option string
		engine          bool
		want            string // of ip route get
		gateway         bool
		left            int
	}{
		{"web", "default-route=true", true, "dev eth0", true, 0},
		{"web", "interface=eth0", true, "via fd99::1", false, 1},
		{"inside", "interface=eth0", false, "unreachable", false, 0},
		{"both", "interface=eth0", false, "via fd77::1 ", false, 0},
	} {
		t.Run(test.network+" "+test.option, func(t *testing.T) {
			c := testenv.NewContainer(t)
			if test.engine {
				engine(c)
			}
			w.MustAttach("c1", c, "network="+test.network, test.option)
			a := w.Record()
			out, err := c.Exec("ip", "-6", "route", "get", "2001:db8:f::9")
			if err != nil {
				out = err.Error()
			}
			if !strings.Contains(out, test.want) || a.SLAAC.Default != test.gateway || len(a.Others) != test.left ||
				!verify.Usable(w.now().Auto) {
				t.Errorf("it routes %s (%s), record %+v", out, routed(c), a)
			}
			if len(a.Addrs) > 1 { // the address of the router is in the subnet, and no lease
				w.LoseDatabase(false)
				if r := w.Record(); !slices.Equal(r.Addrs, a.Addrs) || len(w.now().Changes) > 0 {
					t.Errorf("the rebuilt record is %+v, changes %v", r, w.now().Changes)
				}
			}
			w.DetachAndEnd("c1", c)
		})
	}
}

// TestSLAACDuplicate checks that an address that another station has is not used, and said.
func TestSLAACDuplicate(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	const mac = "02:00:00:00:50:09"
	holder := w.AddClaimant(0, "fd77::ff:fe00:5009/64")
	c := testenv.NewContainer(t)
	w.Refused("a duplicate", w.Attach("c1", c, "network=web", "mac="+mac), 1,
		"address-conflict: address fd77::ff:fe00:5009, which a router's prefix gives to MAC "+mac,
		"is held by "+holder.MAC.String())
}

// TestSLAACUnobserved checks that a container gets an address if the trunk is not watched, and that the
// verdict says why.
func TestSLAACUnobserved(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	c := testenv.NewContainer(t)
	w.attachUnobserved(c)
	a := w.Record()
	if len(a.Verdicts) != 2 || a.Verdicts[1].Code != verify.Unobserved || a.Verdicts[1].MAC != gw.MAC ||
		!strings.Contains(a.Verdicts[1].Text, "bpf") {
		t.Errorf("the verdicts are %+v", a.Verdicts)
	}
	hooklab.Pings(t, c.Namespace, "2001:db8:f::9")
}

// TestSLAACSolicited checks that a router that advertises itself once a minute answers the solicitation in
// a way that the kernel takes. The kernel itself does not solicit.
func TestSLAACSolicited(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	gw.ServeRadvd("AdvDefaultLifetime 120; MinRtrAdvInterval 45; MaxRtrAdvInterval 60; prefix fd77::/64 { };")
	witness := testenv.NewContainer(t)
	w.MustAttach("witness", witness, "network=web", "verify=strict") // radvd runs, and has announced itself
	c := testenv.NewContainer(t)
	must(t, c.Sysctl("net/ipv6/conf/default/router_solicitations", "0"))
	w.MustAttach("c1", c, "network=web", "verify=strict")
	hooklab.Pings(t, c.Namespace, "2001:db8:f::9")
}

// TestSLAACNames checks that the record and the file for the hook have the name servers and search domains of a
// router, and that engines get none with a zone.
func TestSLAACNames(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { }; RDNSS fd77::53 fe80::53 { AdvRDNSSLifetime 600; }; " +
		"RDNSS fd77::54 { AdvRDNSSLifetime 0; }; DNSSL lab.example { AdvDNSSLLifetime 600; };")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	a := w.Record()
	const want = "[fd77::53 fe80::53%eth0] [lab.example]"
	if r := a.Resolver(); fmt.Sprint(r.DNS, r.Search) != want {
		t.Errorf("the record has %v, want %s", r, want)
	}
	if got, err := hook.ReadNames(w.Paths().Names(), a.Netns.Inode); err != nil || len(got) != 1 ||
		fmt.Sprint(got[0].DNS, got[0].Search) != want {
		t.Errorf("the hook reads the names %v, %v, want %s", got, err, want)
	}
	def := w.Definition("web")
	if r := a.ResolverFor(def); fmt.Sprint(r.DNS, r.Search) != "[fd77::53] [lab.example]" {
		t.Errorf("engines get %v", r)
	}
	def.DNS = []netip.Addr{netip.MustParseAddr("192.168.50.5")}
	if r := a.ResolverFor(def); fmt.Sprint(r.DNS, r.Search) != "[192.168.50.5] [lab.example]" {
		t.Errorf("engines get %v for a network with a name server", r)
	}
	w.DetachAndEnd("c1", c)
	if files, err := os.ReadDir(w.Paths().Names()); err != nil || len(files) > 0 {
		t.Errorf("files of names are left: %v, %v", files, err)
	}
}

// noMacvlans returns an error while the trunk has a macvlan.
func (w *world) noMacvlans() error {
	return w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		trunk, err := w.Host.Netlink().LinkByName(w.Trunk)
		if err != nil {
			return err
		}
		macs, err := l.Host.ParentUnicast(trunk.Attrs().Index)
		if err == nil && len(macs) > 0 {
			err = fmt.Errorf("%q receives frames for %v", w.Trunk, macs)
		}
		return err
	})
}

// TestSLAACStablePrivacy checks that addresses of this form are other ones in each prefix and for each name, that a
// container of the same name gets the same ones again, that the kernel makes another one if a station has the
// first, and that none of them is a lease.
func TestSLAACStablePrivacy(t *testing.T) {
	w, gw := newSLAAC(t, func(d *network.Definition) {
		d.IPv6Mode, d.IPv6Addresses, d.Deadline = network.IPv6Both, network.IPv6StablePrivacy, network.Duration(9*time.Second)
		d.Subnets = append(d.Subnets, network.Subnet{
			Subnet: netip.MustParsePrefix("fd77::/64"), Gateway: netip.MustParseAddr("fd77::1"),
		})
	})
	gw.AddAddr("fd78::1/64")
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { }; prefix fd78::/64 { };")
	addrsOf := func(id string, c *testenv.Container) (all []netip.Addr) {
		t.Helper()
		w.MustAttach(id, c, "network=web", "verify=strict")
		testenv.Eventually(t, "an address of each prefix", func() error {
			if now := w.now(); len(now.Auto) != 2 || len(now.Changes) > 0 || slices.ContainsFunc(now.Auto,
				func(a verify.AutoAddr) bool { return a.State != verify.AutoUsable }) {
				return fmt.Errorf("now %+v", now)
			}
			return nil
		})
		for _, a := range w.now().Auto {
			all = append(all, a.Addr.Addr())
		}
		slices.SortFunc(all, netip.Addr.Compare)
		hooklab.Pings(t, c.Namespace, "2001:db8:f::9")
		return all
	}
	addrs := func(id string) []netip.Addr {
		t.Helper()
		c := testenv.NewContainer(t)
		defer func() {
			w.DetachAndEnd(id, c)
			testenv.Eventually(t, "the end of the interface, which answers for its addresses until then", w.noMacvlans)
		}()
		return addrsOf(id, c)
	}
	end := func(a netip.Addr) string { b := a.As16(); return string(b[8:]) }
	first := addrs("c1")
	if end(first[0]) == end(first[1]) || end(first[0])[3:5] == "\xff\xfe" {
		t.Errorf("the addresses are %v", first)
	}
	if again := addrs("c1"); !slices.Equal(again, first) {
		t.Errorf("a container of the same name had %v, and has %v", first, again)
	}
	if other := addrs("c2"); end(other[0]) == end(first[0]) || end(other[1]) == end(first[1]) {
		t.Errorf("a container of another name has %v, the first %v", other, first)
	}
	w.AddClaimant(0, first[0].String()+"/64")
	if third := addrsOf("c1", testenv.NewContainer(t)); third[0] == first[0] || third[1] != first[1] {
		t.Errorf("with another station with %s, the container has %v", first[0], third)
	}
	before := w.Record()
	w.LoseDatabase(false)
	if r := w.Record(); !slices.Equal(r.Addrs, before.Addrs) || len(w.now().Changes) > 0 {
		t.Errorf("the rebuilt record has %v, changes %v; it had %v", r.Addrs, w.now().Changes, before.Addrs)
	}
}

// TestSLAACStablePrivacyReattached checks that an interface that is created again has the same address, also if
// the container that gave it its name has ended, and that two of a rebuilt database differ.
func TestSLAACStablePrivacyReattached(t *testing.T) {
	w, gw := newSLAAC(t, func(d *network.Definition) {
		d.IPv6Mode, d.IPv6Addresses, d.Deadline = network.IPv6Both, network.IPv6StablePrivacy, network.Duration(9*time.Second)
		d.Subnets = append(d.Subnets, network.Subnet{
			Subnet: netip.MustParsePrefix("fd77::/64"), Gateway: netip.MustParseAddr("fd77::1"),
		})
	})
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	cs := []*testenv.Container{testenv.NewContainer(t), testenv.NewContainer(t)}
	w.MustAttach("c1", cs[0], "network=web")
	w.MustAttach("c2", cs[1], "network=web")
	w.MustAttach("sidecar", cs[0], "network=web")
	addrs := func() (all []string) {
		for _, c := range cs {
			out, err := c.Exec("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global", "dynamic")
			must(t, err)
			all = append(all, strings.Join(slices.DeleteFunc(strings.Fields(out), func(s string) bool {
				return !strings.HasPrefix(s, "fd77:")
			}), " "))
		}
		return all
	}
	reattach := func() {
		w.Unplug()
		w.Replug()
		for _, a := range w.Records() {
			if _, err := w.reattach(a); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := addrs()
	w.MustDetach("c1")
	reattach()
	if !slices.Equal(addrs(), before) || before[0] == "" {
		t.Errorf("after reattach %q, before %q", addrs(), before)
	}
	w.LoseDatabase(false)
	if n := len(w.Records()); n != 2 {
		t.Fatalf("%d records are rebuilt", n)
	}
	reattach()
	if addrs()[0] == addrs()[1] {
		t.Errorf("two containers of a rebuilt database have %q", addrs())
	}
}

// TestSLAACTwoRouters checks that a start waits for the default router if another one answers first.
func TestSLAACTwoRouters(t *testing.T) {
	w, gw := newSLAAC(t, nil)
	other := w.AddGateway(0, "fd77::2/64")
	other.ServeRadvd("AdvDefaultLifetime 0; prefix fd77::/64 { };")
	attached, later := make(chan struct{}), sync.WaitGroup{}
	later.Go(func() {
		wait := time.After(2500 * time.Millisecond) // RFC 4861 §6.2.6 permits three seconds
		for {
			select {
			case <-attached:
				return
			case <-wait:
			}
			if err := gw.Advertise(netip.MustParsePrefix("fd77::/64")); err != nil {
				t.Error(err)
			}
			wait = time.After(500 * time.Millisecond)
		}
	})
	defer later.Wait()
	defer close(attached)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	if v := w.Record().Verdicts[1]; v.Code != verify.OK || v.MAC != gw.MAC {
		t.Errorf("the verdict is %v", v)
	}
}

// TestSLAACVerifiedAgain checks that a later verdict does not repeat that of the start.
func TestSLAACVerifiedAgain(t *testing.T) {
	w, gw := newSLAAC(t, func(d *network.Definition) {
		d.IPAM, d.Subnets, d.Deadline = network.IPAMNone, nil, network.Duration(time.Second)
	})
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	verified := func(code verify.Code) {
		t.Helper()
		a := w.Record()
		must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			verdicts, err := l.Verify(ctx, a)
			if len(verdicts) != 1 || verdicts[0].Code != code {
				t.Errorf("verdicts %v, want %s", verdicts, code)
			}
			return err
		}))
	}
	verified(verify.NoRouter)
	w.LoseDatabase(false)
	if a := w.Record(); !a.SLAAC.Default {
		t.Error("a record that was rebuilt without a router does not take the default route of one")
	}
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	testenv.Eventually(t, "an address", func() error {
		if now := w.now(); !verify.Usable(now.Auto) {
			return fmt.Errorf("now %+v", now)
		}
		return nil
	})
	verified(verify.OK)
	a := w.Record()
	hooklab.IP(t, c.Namespace, "link del eth0")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Reattach(ctx, a.ID)
		return err
	}))
	if a = w.Record(); len(a.Verdicts) != 1 {
		t.Errorf("created again, it has the verdicts %v", a.Verdicts)
	}
	w.LoseDatabase(false)
	verified(verify.OK)
}

// TestSLAACInternal checks that a router is asked on a network without default routes, too: an address
// proves that its frames arrive, not that the container's do.
func TestSLAACInternal(t *testing.T) {
	w, gw := newSLAAC(t, func(d *network.Definition) { d.IPAM, d.Subnets, d.Internal = network.IPAMNone, nil, true })
	gw.ServeRadvd("AdvDefaultLifetime 60; prefix fd77::/64 { };")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	if v := w.Record().Verdicts[0]; v.Code != verify.OK || v.MAC != gw.MAC {
		t.Errorf("the verdict is %v", v)
	}
	defer w.Foreign(gw.Namespace, testenv.NIC, testenv.In, 2)() // TC_ACT_SHOT
	other := testenv.NewContainer(t)
	w.Refused("a router that hears nothing", w.Attach("c2", other, "network=web", "verify=strict"), 1,
		"gateway-silent: IPv6 autoconfiguration on", "which has advertised itself, does not answer")
}
