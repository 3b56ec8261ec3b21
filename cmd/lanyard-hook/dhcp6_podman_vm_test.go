//go:build vm

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestRootlessDHCP6 checks that containers of podman have an IPv6 address and a name server from a DHCPv6 server
// on VLAN 60, as root and as a user: guarded, with a permit for the leased address.
func TestRootlessDHCP6(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	r := newRootless(t, "crun", nil)
	gw := r.AddGateway(60, "192.168.60.1/24", "fd78::1/64", "fd60::1/128")
	d := kea6(gw)
	gw.ServeRadvd(managed)
	r.Define("six", r.Trunk+".60", func(d *network.Definition) {
		d.IPAM, d.IPv6Mode, d.Managed = network.IPAMNone, network.IPv6DHCP, true
		d.AllowUsers, d.Deadline = []string{"alice"}, network.Duration(20*time.Second)
	})
	before := r.Links(r.Host)
	check := func(exec func(args ...string) string) hook.Attachment {
		t.Helper()
		a := r.Record()
		if a.DHCP6 == nil || a.Verdict.Code != verify.OK {
			t.Fatalf("record is %+v", a)
		}
		inside := exec("exec", "c1", "sh", "-c", "ip -6 addr show dev eth0; cat /etc/resolv.conf; ping -c1 -W5 fd60::1")
		if !strings.Contains(inside, " "+a.DHCP6.Addr.String()+" ") || !strings.Contains(inside, "nameserver fd78::53\n") {
			t.Errorf("the container has %s", inside)
		}
		return a
	}
	options := []string{"run", "--detach", "--name", "c1", "--network", "none", "--cap-add", "NET_RAW", "--annotation",
		"io.lanyard.network=six", "--rootfs"}
	for _, runtime := range testenv.OneRuntime(nil) {
		r.runtime = runtime
		r.mustPodman(alice, append(options, filepath.Join(r.home(alice), "rootfs"), "sleep", "300")...)
		a := check(func(args ...string) string { return r.mustPodman(alice, args...) })
		if g := a.Guard; g == nil || fmt.Sprint(g.Addrs) != fmt.Sprintf("[%s]", a.DHCP6.Addr.Addr()) {
			t.Errorf("the guard permits %+v", g)
		}
		testenv.Eventually(t, "a renewed lease", func() error {
			if now := r.Record(); now.DHCP6.Expires <= a.DHCP6.Expires {
				return fmt.Errorf("the lease is %+v: %s", now.DHCP6, r.logged())
			}
			return nil
		})
		check(func(args ...string) string { return r.mustPodman(alice, args...) })
		r.mustPodman(alice, "rm", "--force", "--time", "0", "c1")
		d.WantLog("binding for address " + a.DHCP6.Addr.Addr().String() + " and iaid")
		r.wantNoGuards(t)

		e := newEngineOf(t, r.world)
		podman := e.podman(runtime)
		t.Cleanup(func() { e.run(podman("rm", "--all", "--force", "--time", "0")...) })
		e.must(podman(append(options, e.rootfs(), "sleep", "300")...)...)
		a = check(func(args ...string) string { return e.must(podman(args...)...) })
		if a.Guard != nil || a.Owner != 0 {
			t.Errorf("record is %+v", a)
		}
		e.must(podman("rm", "--force", "--time", "0", "c1")...)
		d.WantLog("binding for address " + a.DHCP6.Addr.Addr().String() + " and iaid")
		r.WantNothing("six", before)
	}
}
