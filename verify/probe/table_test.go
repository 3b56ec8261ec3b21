package probe_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// withTable runs a test with a table prober and closes it.
func withTable(t *testing.T, p containerLink, test func(*probe.Table)) {
	t.Helper()
	p.do(t, func() error {
		prober, err := probe.OpenTable(p.ifindex, p.mac, probe.SocketSender{})
		if err != nil {
			return err
		}
		test(prober)
		return prober.Close()
	})
}

// TestTableClose checks that Close leaves the entry of the gateway that answered, and no other.
func TestTableClose(t *testing.T) {
	l, gw := mustLab(t)
	claimant := l.AddClaimant(0, "192.168.50.9/24", "fd50::9/64")
	p := mustContainerLink(t, l)
	withTable(t, p, func(prober *probe.Table) {
		for _, addr := range []string{"192.168.50.9", "fd50::9"} {
			ask(t, prober, verify.Question{Addr: netip.MustParseAddr(addr), Conflict: true}, claimant.MAC)
		}
		for _, addr := range []netip.Addr{free4, free6} {
			askSilence(t, prober, verify.Question{Addr: addr, Conflict: true})
		}
		for _, addr := range []string{"192.168.50.200", "fd50::200"} {
			askSilence(t, prober, verify.Question{Addr: netip.MustParseAddr(addr)})
		}
		for _, addr := range []netip.Addr{gateway4, gateway6} {
			ask(t, prober, verify.Question{Addr: addr}, gw.MAC)
		}
		if n := len(p.neighbours(t)); n != 8 {
			t.Errorf("%d entries while asking, want 8", n)
		}
	})
	left := p.neighbours(t)
	for _, addr := range []netip.Addr{gateway4, gateway6} {
		if n := left[addr.String()]; n.HardwareAddr.String() != gw.MAC.String() {
			t.Errorf("gateway %s is at %q, want %s", addr, n.HardwareAddr, gw.MAC)
		}
		delete(left, addr.String())
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTableIgnoresOldEntries checks that entries from before the question do not answer it.
func TestTableIgnoresOldEntries(t *testing.T) {
	l, gw := mustLab(t)
	p := mustContainerLink(t, l)
	for _, addr := range []netip.Addr{gateway4, gateway6, free4, free6} {
		must(t, p.Netlink().NeighSet(&netlink.Neigh{
			LinkIndex: p.ifindex, IP: addr.AsSlice(), State: netlink.NUD_REACHABLE,
			HardwareAddr: net.HardwareAddr{0x0a, 9, 9, 9, 9, 9},
		}))
	}
	withTable(t, p, func(prober *probe.Table) {
		ask(t, prober, verify.Question{Addr: gateway4}, gw.MAC)
		ask(t, prober, verify.Question{Addr: gateway6}, gw.MAC)
		askSilence(t, prober, verify.Question{Addr: free4})
		askSilence(t, prober, verify.Question{Addr: free6})
	})
}

// TestTableOverrun checks that answers are found even if their events were lost.
func TestTableOverrun(t *testing.T) {
	l, gw := mustLab(t)
	p := mustContainerLink(t, l)
	flood := func() error {
		n := &netlink.Neigh{LinkIndex: p.ifindex, IP: net.IPv4(192, 168, 50, 250), State: netlink.NUD_PERMANENT}
		for i := range 2000 { // a socket holds some hundreds
			n.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}
			if err := p.Netlink().NeighSet(n); err != nil {
				return err
			}
		}
		return nil
	}
	for _, addr := range []netip.Addr{gateway4, gateway6} {
		overrun(t, p, gw, addr, flood)
	}
}

func overrun(t *testing.T, p containerLink, gw *testenv.Station, addr netip.Addr, flood func() error) {
	t.Helper()
	withTable(t, p, func(prober *probe.Table) {
		lost := triggeringProber{prober, func() error {
			return waitForMAC(p, addr)
		}}
		if err := flood(); err != nil {
			t.Error(err)
		}
		ask(t, lost, verify.Question{Addr: addr}, gw.MAC)
	})
}

// waitForMAC waits until the table has a MAC for an address.
func waitForMAC(p containerLink, addr netip.Addr) error {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	for deadline := time.Now().Add(answerTimeout); time.Now().Before(deadline); {
		list, err := p.Netlink().NeighList(p.ifindex, family)
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.IP.String() == addr.String() && n.HardwareAddr != nil {
				return nil
			}
		}
	}
	return fmt.Errorf("%s has no MAC after %v", addr, answerTimeout)
}

func TestTableRefusals(t *testing.T) {
	l, _ := mustLab(t)
	p := mustContainerLink(t, l)
	must(t, p.Sysctl("net/ipv6/conf/lan0/disable_ipv6", "1"))
	broken := errors.New("broken")
	p.do(t, func() error {
		prober, err := probe.OpenTable(p.ifindex, p.mac, senderFunc(func(int, []byte) error { return broken }))
		if err != nil {
			return err
		}
		for addr, want := range map[netip.Addr]string{free6: "IPv6 is off", free4: "broken", {}: ""} {
			err := prober.Ask(verify.Question{Addr: addr})
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("ask for %q: %v, want %q", addr, err, want)
			}
		}
		return prober.Close()
	})
	if left := p.neighbours(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

type senderFunc func(int, []byte) error

func (f senderFunc) Send(ifindex int, frame []byte) error { return f(ifindex, frame) }

// TestTableLinkGone deletes the interface during the question: Close then has nothing to do.
func TestTableLinkGone(t *testing.T) {
	l, _ := mustLab(t)
	p := mustContainerLink(t, l)
	withTable(t, p, func(prober *probe.Table) {
		askSilence(t, prober, verify.Question{Addr: free4, Conflict: true})
		link, err := p.Netlink().LinkByIndex(p.ifindex)
		if err == nil {
			err = p.Netlink().LinkDel(link)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestPodLeaksNothing probes in a pod. Its other interface has an address and the default route.
// No frame may leave with that address, and no frame that the prober did not send.
func TestPodLeaksNothing(t *testing.T) {
	l, gw := mustLab(t)
	pod := testenv.NewNamespace(t, "pod")
	for _, args := range [][]string{
		{"link", "add", "eth0", "up", "type", "veth", "peer", "name", "cni0"},
		{"link", "set", "cni0", "up"},
		{"addr", "add", "10.88.0.5/16", "dev", "eth0"},
		{"addr", "add", "fd88::5/64", "dev", "eth0", "nodad"},
		{"route", "add", "default", "via", "10.88.0.1"},
		{"-6", "route", "add", "default", "via", "fd88::1"},
	} {
		_, err := pod.Exec("ip", args...)
		must(t, err)
	}
	p := mustMacvlan(t, l, pod, "lan0", ether.MAC{0x02, 0x42, 192, 168, 50, 2})
	capture := mustCapture(t, gw)
	questions := []verify.Question{
		{Addr: gateway4}, {Addr: gateway6},
		{Addr: free4, Conflict: true}, {Addr: free6, Conflict: true},
		{Addr: netip.MustParseAddr("192.168.50.200")}, {Addr: netip.MustParseAddr("fd50::200")},
	}
	withTable(t, p, func(prober *probe.Table) {
		for _, q := range questions {
			if err := prober.Ask(q); err != nil {
				t.Error(err)
			}
		}
		// The kernel would send its own questions at once, or after a second
		// (net.ipv4.neigh.*.retrans_time_ms) if it has started its timer.
		asked := capture(t, p.mac, 1500*time.Millisecond)
		for _, q := range questions {
			if n := asked[q.Addr]; n != 1 {
				t.Errorf("%s was asked for %d times, want once", q.Addr, n)
			}
		}
	})
}

// mustCapture listens to all frames at a station. The returned function reads them for a time,
// fails the test for every question from a MAC that reveals a sender address, and counts the
// questions for each address.
func mustCapture(t *testing.T, s *testenv.Station) func(*testing.T, ether.MAC, time.Duration) map[netip.Addr]int {
	t.Helper()
	var conn *packet.Conn
	must(t, s.Do(func() error {
		nic, err := net.InterfaceByName(testenv.NIC)
		if err != nil {
			return err
		}
		if conn, err = packet.Listen(nic, packet.Raw, unix.ETH_P_ALL, nil); err != nil {
			return err
		}
		return conn.SetPromiscuous(true)
	}))
	t.Cleanup(func() { conn.Close() })
	return func(t *testing.T, mac ether.MAC, d time.Duration) map[netip.Addr]int {
		t.Helper()
		asked := map[netip.Addr]int{}
		if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 2048)
		for {
			n, _, err := conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return asked
			}
			if err != nil {
				t.Error(err)
				return asked
			}
			if a, err := arp.Parse(buf[:n]); err == nil && a.Source == mac {
				asked[a.TargetIP]++
				if !a.SenderIP.IsUnspecified() {
					t.Errorf("ARP for %s reveals %s", a.TargetIP, a.SenderIP)
				}
			}
			if m, err := ndp.Parse(buf[:n]); err == nil && m.Source == mac && !m.Advert {
				asked[m.Target]++
				if !m.From.IsUnspecified() {
					t.Errorf("NS for %s comes from %s", m.Target, m.From)
				}
			}
		}
	}
}

// TestNoDescriptorsLeft checks that many probers leave no descriptors open.
func TestNoDescriptorsLeft(t *testing.T) {
	l, gw := mustLab(t)
	p := mustContainerLink(t, l)
	use := func() {
		for kind := range probers {
			p.do(t, func() error {
				prober, closeAll, err := probers[kind](p)
				if err != nil {
					return err
				}
				ask(t, prober, verify.Question{Addr: gateway4}, gw.MAC)
				return closeAll()
			})
		}
	}
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	use() // the runtime opens some descriptors once
	before := count()
	for range 10 {
		use()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
