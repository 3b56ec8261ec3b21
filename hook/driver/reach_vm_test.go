//go:build vm

package driver_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

func TestMain(m *testing.M) { hooklab.Main(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// TestPassthru checks that passthru gives one container the parent's MAC, and refuses a
// second container.
func TestPassthru(t *testing.T) {
	w := hooklab.New(t, testenv.Config{VLANs: []uint16{50}})
	w.AddGateway(50, "192.168.50.1/24")
	w.Define("web", "eth9.50", func(d *network.Definition) { d.Mode = network.ModePassthru }, "192.168.50.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "verify=strict")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	l, err := w.Host.Netlink().LinkByName("eth9.50")
	must(t, err)
	if a := w.Record(); a.MAC.String() != l.Attrs().HardwareAddr.String() {
		t.Errorf("MAC %s, the parent's is %s", a.MAC, l.Attrs().HardwareAddr)
	}
	w.Refused("a second container", w.Attach("c2", testenv.NewContainer(t), "network=web"), 1, "passthru")
	w.Refused("another MAC", w.Attach("c3", testenv.NewContainer(t), "network=web", "mac=02:00:00:00:00:01"), 1,
		"cannot use MAC 02:00:00:00:00:01")
}

// TestIPvlanL2 checks that ipvlan containers reach the gateway and each other with the
// parent's MAC, and that the verdict says what could not be observed.
func TestIPvlanL2(t *testing.T) {
	w := hooklab.New(t, testenv.Config{VLANs: []uint16{20}})
	gw := w.AddGateway(20, "192.168.20.1/24", "fd20::1/64")
	claimant := w.AddClaimant(20, "192.168.20.3/24")
	before := w.Links(w.Host)
	if err := define(w, "web", "eth9.20", network.ModeL2, "192.168.20.0/24", "fd20::/64"); err == nil ||
		!strings.Contains(err.Error(), "driver ipvlan sends with the MAC of parent") {
		t.Fatalf("not said that it cannot be watched: %v", err)
	}
	a, b := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("a", a, "network=web", "verify=strict")
	rec := w.Record()
	if rec.Verdict.Code != verify.Unobserved || !strings.Contains(rec.Verdict.Text,
		"driver ipvlan sends with the MAC of parent") {
		t.Errorf("verdict %+v", rec.Verdict)
	}
	// The claimant's address is declined.
	w.MustAttach("b", b, "network=web", "verify=strict")
	if addrs := hooklab.AddrsIn(t, b); addrs[0] != "192.168.20.4/24" {
		t.Errorf("addresses %q next to the claimant %s", addrs, claimant.MAC)
	}
	for _, c := range []*testenv.Container{a, b} {
		hooklab.Pings(t, c.Namespace, "192.168.20.1")
		hooklab.Pings(t, c.Namespace, "fd20::1")
	}
	hooklab.Pings(t, a.Namespace, "192.168.20.4")
	out, err := gw.Exec("ip", "neigh", "show", "192.168.20.4")
	must(t, err)
	if !strings.Contains(out, rec.MAC.String()) {
		t.Errorf("the gateway knows %q, want %s", out, rec.MAC)
	}
	must(t, verifyAgain(w, rec))
	w.Refused("a MAC of its own", w.Attach("x", testenv.NewContainer(t), "network=web", "mac=02:00:00:00:00:01"), 1,
		"cannot use MAC")
	// A fast restart: the address is in use until the old namespace is gone.
	w.DetachAndEnd("a", a)
	again := testenv.NewContainer(t)
	w.MustAttach("a", again, "network=web", "ip=192.168.20.2")
	hooklab.Pings(t, again.Namespace, "192.168.20.1")
	w.DetachAndEnd("a", again)
	w.DetachAndEnd("b", b)
	w.WantNothing("web", append(before[:1:1], append([]string{"eth9.20"}, before[1:]...)...))
}

// TestIPvlanL3 checks that two subnets on one parent reach each other by the host,
// without a gateway; the default route is the link.
func TestIPvlanL3(t *testing.T) {
	for _, mode := range []network.Mode{network.ModeL3, network.ModeL3S} {
		t.Run(string(mode), func(t *testing.T) {
			w := hooklab.New(t, testenv.Config{})
			if err := define(w, "web", "eth9", mode, "192.168.214.0/24", "10.1.214.0/24", "fd14::/64"); err == nil {
				t.Fatal("not said that it cannot be watched")
			}
			a, b := testenv.NewContainer(t), testenv.NewContainer(t)
			w.MustAttach("a", a, "network=web", "ip=192.168.214.10", "verify=strict")
			w.MustAttach("b", b, "network=web", "ip=10.1.214.10", "ip6=fd14::10", "verify=strict")
			if routes := hooklab.RoutesIn(t, a, "-4"); !strings.HasPrefix(routes[0], "default dev eth0 scope link") {
				t.Errorf("routes %q", routes)
			}
			hooklab.Pings(t, a.Namespace, "10.1.214.10")
			hooklab.Pings(t, a.Namespace, "fd14::10")
		})
	}
}

// define defines an ipvlan network, in mode l2 with the first address of each subnet as
// gateway. The returned error is the note that tags are not watched.
func define(w *hooklab.Lab, name, parent string, mode network.Mode, subnets ...string) error {
	w.TB.Helper()
	return w.TryDefine(name, parent, func(d *network.Definition) {
		d.Driver, d.Mode = network.DriverIPvlan, mode
		for i := range d.Subnets {
			if d.Routed() {
				d.Subnets[i].Gateway = netip.Addr{}
			}
		}
	}, subnets...)
}

// verifyAgain probes the gateways of an attachment again.
func verifyAgain(w *hooklab.Lab, a hook.Attachment) error {
	return w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		verdicts, err := l.Verify(ctx, a)
		for _, v := range verdicts {
			if !v.Code.Good() {
				err = errors.Join(err, errors.New(v.Text))
			}
		}
		return err
	})
}
