package probe_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// TestMTU checks the size of packets that come back, through a real switch, with both families.
func TestMTU(t *testing.T) {
	l, gw := mustLab(t)
	c := mustMacvlan(t, l, testenv.NewNamespace(t, "container"), "eth0", ether.MAC{2, 0, 0, 0, 0, 9})
	link, err := c.Netlink().LinkByName("eth0")
	must(t, err)
	for _, a := range []string{"192.168.50.9/24", "fd50::9/64"} {
		_, err := c.Exec("ip", "addr", "add", a, "dev", "eth0", "nodad")
		must(t, err)
	}
	measure := func(from, to netip.Addr, size int) (m verify.PathMTU) {
		t.Helper()
		must(t, c.Do(func() error {
			p, err := probe.OpenPinger(link.Attrs().Index,
				verify.Ends{Source: c.mac, Destination: gw.MAC, From: from, To: to})
			if err != nil {
				return err
			}
			defer p.Close()
			m, err = verify.MeasureMTU(context.Background(), p, size)
			return err
		}))
		return m
	}
	both := func(name string, want verify.PathMTU) {
		t.Helper()
		for from, to := range map[netip.Addr]netip.Addr{
			netip.MustParseAddr("192.168.50.9"): gateway4, netip.MustParseAddr("fd50::9"): gateway6,
		} {
			if got := measure(from, to, want.Size); got != want {
				t.Errorf("%s, to %s: got %+v, want %+v", name, to, got, want)
			}
		}
	}
	both("the same MTU everywhere", verify.PathMTU{Size: 1500, Passes: 1500})
	untag := gw.TagPriority()
	both("answers with a priority and no VLAN", verify.PathMTU{Size: 1500, Passes: 1500})
	untag()

	l.SetTrunkMTU(1333)
	both("a smaller MTU of the port", verify.PathMTU{Size: 1500, Passes: 1337})
	both("a container's MTU that fits", verify.PathMTU{Size: 1337, Passes: 1337})
	l.SetTrunkMTU(1500)

	// The gateway receives packets of 1500 bytes, and sends only smaller ones.
	for _, to := range []string{"192.168.50.9", "fd50::9"} {
		_, err := gw.Exec("ip", "route", "add", to, "dev", testenv.NIC, "mtu", "1420")
		must(t, err)
	}
	if got := measure(netip.MustParseAddr("192.168.50.9"), gateway4, 1500); got.Passes != 1500 || got.Fragment != 1420 {
		t.Errorf("fragments: got %+v, want the first of 1420 bytes", got)
	}
	// A fragment of IPv6 ends at a multiple of 8 bytes after its headers: 40 + 8 + 1368.
	if got := measure(netip.MustParseAddr("fd50::9"), gateway6, 1500); got.Passes != 1500 || got.Fragment != 1416 {
		t.Errorf("fragments: got %+v, want the first of 1416 bytes", got)
	}

	must(t, gw.Sysctl("net/ipv4/icmp_echo_ignore_all", "1"))
	must(t, gw.Sysctl("net/ipv6/icmp/echo_ignore_all", "1"))
	both("a gateway that answers no echo requests", verify.PathMTU{Size: 1500})
}
