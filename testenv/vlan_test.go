//go:build vm

package testenv

import (
	"testing"
	"time"
)

// addTag adds a VLAN sub-interface with an address to the host's card.
func addTag(t *testing.T, l *Lab, name, vid, prefix string) {
	t.Helper()
	_, err := l.Host.Exec("ip", "link", "add", "link", l.Trunk, "name", name, "up", "type", "vlan", "id", vid)
	must(t, err)
	hostAddr(t, l, name, prefix)
}

func TestVLANLab(t *testing.T) {
	l := NewLab(t, Config{VLANs: []uint16{50, 60}})
	l.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
	l.AddGateway(60, "192.168.60.1/24")
	l.AddGateway(0, "192.0.2.1/24")
	addTag(t, l, "eth9.50", "50", "192.168.50.9/24")
	addTag(t, l, "eth9.60", "60", "192.168.60.9/24")
	hostAddr(t, l, "eth9.50", "fd50::9/64")
	hostAddr(t, l, "eth9", "192.0.2.9/24")
	for _, addr := range []string{"192.168.50.1", "fd50::1", "192.168.60.1", "192.0.2.1"} {
		if err := pings(l.Host, addr); err != nil {
			t.Error(err)
		}
	}
}

func TestVLANFaults(t *testing.T) {
	l := NewLab(t, Config{VLANs: []uint16{50, 60}})
	gw := l.AddGateway(50, "192.168.50.1/24")
	addTag(t, l, "eth9.50", "50", "192.168.50.9/24")
	addTag(t, l, "eth9.60", "60", "192.168.50.10/24")
	hostAddr(t, l, "eth9", "192.168.50.11/24")

	// answers reports whether the gateway answers on one of the host's cards.
	answers := func(nic string) bool {
		// A failed neighbour entry would delay the next request.
		_, err := l.Host.Exec("ip", "neigh", "flush", "dev", nic)
		must(t, err)
		_, err = l.Host.Exec("ping", "-n", "-c1", "-W1", "-I", nic, "192.168.50.1")
		return err == nil
	}
	check := func(what string, want ...string) {
		t.Helper()
		expected := map[string]bool{}
		for _, nic := range want {
			expected[nic] = true
		}
		for _, nic := range []string{"eth9", "eth9.50", "eth9.60"} {
			if got := answers(nic); got != expected[nic] {
				t.Errorf("%s: gateway answers on %s: %v, want %v", what, nic, got, expected[nic])
			}
		}
	}
	check("healthy", "eth9.50")
	gw.MoveToVLAN(60)
	check("the access port is in VLAN 60", "eth9.60")
	gw.MoveToVLAN(50)
	l.TakeOffTrunk(50)
	check("VLAN 50 is not on the trunk")
	l.PutOnTrunk(50)
	check("VLAN 50 is on the trunk again", "eth9.50")
	l.SetNative(60)
	gw.MoveToVLAN(60)
	// Tagged requests still enter VLAN 60; their replies come back untagged.
	check("VLAN 60 is native", "eth9")
}

func TestImpair(t *testing.T) {
	l := NewLab(t, Config{})
	gw := l.AddGateway(0, "192.0.2.1/24")
	hostAddr(t, l, "eth9", "192.0.2.9/24")
	must(t, pings(l.Host, "192.0.2.1"))

	const delay = 300 * time.Millisecond
	gw.Impair(delay, 0)
	start := time.Now()
	must(t, pings(l.Host, "192.0.2.1"))
	if took := time.Since(start); took < delay {
		t.Errorf("a ping took %v with a delay of %v", took, delay)
	}
	gw.Impair(0, 100)
	if pings(l.Host, "192.0.2.1") == nil {
		t.Error("a ping came back with all frames lost")
	}
	gw.Impair(0, 0)
	must(t, pings(l.Host, "192.0.2.1"))
}
