package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestSLAACGuarded checks that a rootless container has addresses from routers, also after these have
// changed their prefix and after the database was lost, and can use no other address of a prefix.
func TestSLAACGuarded(t *testing.T) {
	b := newBrokered(t, testenv.Config{})
	gw := b.AddGateway(0, "192.168.50.1/24", "fd77::1/64", "fd78::1/64")
	radvd := gw.ServeRadvd("prefix fd77::/64 { };")
	b.Define("web", b.Trunk, func(d *network.Definition) {
		d.AllowUsers, d.IPv6Mode = []string{fmt.Sprint(alice)}, network.IPv6SLAAC
		d.Deadline = network.Duration(20 * time.Second)
	}, "192.168.50.0/24")
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	r := b.Record()
	if r.Guard == nil || !r.Guard.Autoconf || len(r.Verdicts) != 2 || r.Verdict.Code != verify.OK {
		t.Fatalf("the guard is %+v, the verdicts %v", r.Guard, r.Verdicts)
	}
	hooklab.Pings(t, c.Namespace, "fd77::1")
	_, err := c.Exec("ip", "addr", "add", "fd77::77/64", "dev", "eth0", "nodad")
	must(t, err)
	if out, err := c.Exec("ping", "-c1", "-W1", "-I", "fd77::77", "fd77::1"); err == nil {
		t.Errorf("the container can use another address of the prefix: %s", out)
	}
	if out, err := gw.Exec("ip", "neigh", "show"); err != nil || strings.Contains(out, "fd77::77") {
		t.Errorf("the router knows %s, %v", out, err)
	}
	b.LoseDatabase(false)
	testenv.Eventually(t, "a rebuilt guard", func() error {
		if now := b.Record(); now.SLAAC == nil || now.Guard == nil || !now.Guard.Autoconf {
			return fmt.Errorf("the record has guard %+v, SLAAC %+v: %s", now.Guard, now.SLAAC, b.logged())
		}
		return nil
	})
	radvd.Change("prefix fd78::/64 { };")
	own := r.MAC.LinkLocal().As16()
	copy(own[:8], netip.MustParseAddr("fd78::").AsSlice())
	from := netip.AddrFrom16(own).String()
	testenv.Eventually(t, "an address of the new prefix", func() error {
		_, err := c.Exec("ping", "-c1", "-W1", "-I", from, "fd78::1")
		return err
	})
}
