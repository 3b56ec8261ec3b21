//go:build failpoint

package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// TestDHCPKilled checks that nothing is left of an attach that was killed after the server's answer:
// the server has the lease back. The next attach gets the same one.
func TestDHCPKilled(t *testing.T) {
	b, _, d := lanDHCP(t, dnsmasq)
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.stop()
	b.start("LANYARD_FAILPOINT=dhcp")
	if o := b.Attach("c1", c, "network=web"); o.Status != 1 || !strings.Contains(o.Stderr, "only the service renews") {
		t.Errorf("the hook goes on without the service: %+v", o)
	}
	b.cmd.Wait() // "signal: killed"
	b.start()
	b.WantNothing("web", before)
	d.WantLog("DHCPRELEASE(eth0) 192.168.50.")
	b.MustAttach("c1", c, "network=web")
	if ack := "DHCPACK(eth0) " + b.Record().Addrs[0].Addr().String(); strings.Count(d.Log(), ack) != 2 {
		t.Errorf("not one address for both attaches: %s", d.Log())
	}
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
}

// TestDHCPKilledAtRelease checks that the next container can have the address that the server has back,
// before the rest of the one that had it is swept.
func TestDHCPKilledAtRelease(t *testing.T) {
	b, _, d := lanDHCP(t, func(gw *testenv.Station) *testenv.DHCPServer {
		return gw.ServeDHCP("192.168.50.100,192.168.50.100,120")
	})
	before := b.Links(b.Host)
	c, next := testenv.NewContainer(t), testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	must(t, c.Kill())
	c.End(t)
	goOn := b.mustStop() // the hook goes on by itself
	o := b.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"poststop"}, "LANYARD_FAILPOINT=released")
	goOn()
	if o.Status != -1 {
		t.Fatalf("the hook was not killed: %+v", o)
	}
	d.WantLog("DHCPRELEASE(eth0) 192.168.50.100")
	b.MustAttach("c2", next, "network=web")
	hooklab.Pings(t, next.Namespace, "192.168.50.1")
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	}))
	hooklab.Pings(t, next.Namespace, "192.168.50.1")
	if b.held() != 1 || b.Watched() != 1 {
		t.Errorf("after the sweep: %d leases, %d endpoints", b.held(), b.Watched())
	}
	b.DetachAndEnd("c2", next)
	b.WantNothing("web", before)
}

// TestDHCPKilledAtReplacement checks that the server has a lease back that it gave to a running container
// just before the service was killed.
func TestDHCPKilledAtReplacement(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	b.stop()
	d.Stop()
	d = gw.ServeDHCP("192.168.50.200,192.168.50.210,120") // ends the lease, and gives another
	b.startOnly("LANYARD_FAILPOINT=dhcp")
	b.cmd.Wait() // "signal: killed"
	a := b.Record().DHCP
	if a.Lost == "" || a.Returned || a.Addr.Addr().As4()[3] < 200 {
		t.Errorf("the recorded lease is %+v", a)
	}
	d.WantLog("DHCPACK(eth0) " + a.Addr.Addr().String())
	must(t, c.Kill())
	b.start()
	d.WantLog("DHCPRELEASE(eth0) " + a.Addr.Addr().String())
}

// holdAtLease restarts the service, with another server that ends all leases and gives others, and waits
// until it has the new lease of a running container. It replaces the old one when goOn is called.
func (b *brokered) holdAtLease(d *testenv.DHCPServer, gw *testenv.Station) (goOn func()) {
	b.tb.Helper()
	b.stop()
	d.Stop()
	gw.ServeDHCP("192.168.50.200,192.168.50.210,120")
	path := filepath.Join(b.tb.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(b.tb, err)
	b.tb.Cleanup(func() { l.Close() })
	b.start("LANYARD_FAILPOINT=dhcp", "LANYARD_FAILPOINT_SOCKET="+path)
	must(b.tb, l.SetDeadline(time.Now().Add(20*time.Second)))
	c, err := l.Accept()
	if err != nil {
		b.tb.Fatalf("%v: %s", err, b.logged())
	}
	return func() { must(b.tb, errors.Join(l.Close(), c.Close())) }
}

// TestDHCPReattachedAtReplacement creates an interface again while the service replaces its lease: the
// record is that of the new interface.
func TestDHCPReattachedAtReplacement(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web")
	goOn := b.holdAtLease(d, gw)
	hooklab.IP(t, c.Namespace, "link del eth0")
	var again hook.Attachment
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		again, err = l.Reattach(ctx, b.Record().ID)
		return err
	}))
	goOn()
	testenv.Eventually(t, "the end of the replacement", func() error {
		if !strings.Contains(b.logged(), "could not renew the lease of a container") {
			return errors.New(b.logged())
		}
		return nil
	})
	if r := b.Record(); r.Index != again.Index || r.DHCP.Lost != "" || r.DHCP.Addr != again.DHCP.Addr || b.held() != 1 {
		t.Errorf("the record has ifindex %d, lease %+v; want %d, %+v", r.Index, r.DHCP, again.Index, again.DHCP)
	}
	if list := b.changes(); len(list) > 0 {
		t.Errorf("changes are %+v", list)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.DetachAndEnd("c1", c)
}

// TestDHCPDetachedAtReplacement detaches a guarded container while the service replaces its lease: no
// guard is left.
func TestDHCPDetachedAtReplacement(t *testing.T) {
	b, gw, d := lanDHCP(t, isc("192.168.50.100 192.168.50.150"))
	before := b.Links(b.Host)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	goOn := b.holdAtLease(d, gw)
	guard := *b.Record().Guard
	must(t, c.Kill())
	must(t, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error { return l.Detach(ctx, "c1") }))
	goOn()
	b.stop() // waits for the replacement
	c.End(t)
	b.wantNoGuards(t)
	must(t, b.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		for _, index := range []int{guard.Inside, guard.Outside} {
			if n, err := l.Guards.Guarded(verify.Guard{Inside: index, Outside: index}); err == nil {
				t.Errorf("the guard of link %d is left: %+v", index, n)
			}
		}
		return nil
	}))
	b.WantNothing("web", before)
}

// TestDHCP6Killed is TestDHCPKilled for DHCPv6, with the same address for both attaches.
func TestDHCP6Killed(t *testing.T) {
	b, _, d := lanDHCP6(t, dnsmasq6)
	before := b.Links(b.Host)
	c := testenv.NewContainer(t)
	b.stop()
	b.start("LANYARD_FAILPOINT=dhcp")
	b.Attach("c1", c, "network=web")
	b.cmd.Wait() // "signal: killed"
	b.start()
	b.WantNothing("web", before)
	d.WantLog("DHCPRELEASE(eth0) 00:03:00:01:")
	b.MustAttach("c1", c, "network=web")
	if _, addr := b.lease6(c); strings.Count(d.Log(), "DHCPREPLY(eth0) "+addr) != 2 {
		t.Errorf("not one address for both attaches: %s", d.Log())
	}
	b.DetachAndEnd("c1", c)
	b.WantNothing("web", before)
}
