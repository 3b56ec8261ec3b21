package testenv

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// hostAddr adds an address to a card of the host.
func hostAddr(t *testing.T, l *Lab, nic, prefix string) {
	t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	must(t, err)
	if addr.IP.To4() == nil {
		addr.Flags = 0x02 // IFA_F_NODAD
	}
	must(t, l.Host.nl.AddrAdd(l.Host.link(t, nic), addr))
}

// pings returns an error unless an address answers a ping from a namespace within two seconds.
func pings(n *Namespace, addr string) error {
	_, err := n.Exec("ping", "-n", "-c1", "-W2", addr)
	return err
}

func TestUntaggedLab(t *testing.T) {
	l := NewLab(t, Config{})
	gw := l.AddGateway(0, "192.0.2.1/24", "2001:db8::1/64")
	hostAddr(t, l, l.Trunk, "192.0.2.9/24")
	hostAddr(t, l, l.Trunk, "2001:db8::9/64")

	must(t, pings(l.Host, "192.0.2.1"))
	must(t, pings(l.Host, "2001:db8::1"))

	neigh, err := l.Host.nl.NeighList(l.Host.link(t, l.Trunk).Attrs().Index, netlink.FAMILY_V4)
	must(t, err)
	if len(neigh) != 1 || neigh[0].HardwareAddr.String() != gw.MAC.String() {
		t.Errorf("the host's neighbours are %v, want the gateway with %s", neigh, gw.MAC)
	}
}

func TestUntaggedFaults(t *testing.T) {
	l := NewLab(t, Config{Trunk: "uplink0"})
	gw := l.AddGateway(0, "192.0.2.1/24")
	hostAddr(t, l, "uplink0", "192.0.2.9/24")
	must(t, pings(l.Host, "192.0.2.1"))

	silent := func(what string) {
		t.Helper()
		if pings(l.Host, "192.0.2.1") == nil {
			t.Errorf("the gateway answers: %s", what)
		}
	}
	gw.SetPort(false)
	silent("its port is down")
	gw.SetPort(true)
	must(t, pings(l.Host, "192.0.2.1"))

	gw.RemoveAddr("192.0.2.1/24")
	silent("its address is removed")
	gw.AddAddr("192.0.2.1/24")
	must(t, pings(l.Host, "192.0.2.1"))

	l.SetTrunk(false)
	Eventually(t, "the trunk to lose its carrier", func() error {
		link := l.Host.link(t, "uplink0")
		if link.Attrs().OperState == netlink.OperUp {
			return errors.New("the trunk is up")
		}
		return nil
	})
	l.SetTrunk(true)
	must(t, pings(l.Host, "192.0.2.1"))

	mac := ether.MAC{0x0a, 1, 2, 3, 4, 5}
	gw.SetMAC(mac)
	_, err := l.Host.Exec("ip", "neigh", "flush", "dev", "uplink0")
	must(t, err)
	must(t, pings(l.Host, "192.0.2.1"))
	out, err := l.Host.Exec("ip", "neigh", "show", "192.0.2.1")
	must(t, err)
	if !strings.Contains(out, mac.String()) {
		t.Errorf("after the gateway's MAC changed to %s the host has %q", mac, out)
	}
}

func TestRival(t *testing.T) {
	l := NewLab(t, Config{})
	rival := l.AddClaimant(0, "192.0.2.77/24")
	hostAddr(t, l, l.Trunk, "192.0.2.9/24")
	gw := l.AddGateway(0, "192.0.2.1/24")
	must(t, pings(l.Host, "192.0.2.1"))
	must(t, pings(l.Host, "192.0.2.77"))
	out, err := l.Host.Exec("ip", "neigh", "show", "192.0.2.77")
	must(t, err)
	if !strings.Contains(out, rival.MAC.String()) || rival.MAC.String() == gw.MAC.String() {
		t.Errorf("the claimant's address is held by %q, want %s", out, rival.MAC)
	}
}
