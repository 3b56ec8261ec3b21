package probe_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/probe"
)

// answerTimeout is how long an answer may take on a busy or emulated machine. silenceTime is how
// long the tests wait to conclude that there is no answer.
const (
	answerTimeout = 5 * time.Second
	silenceTime   = 200 * time.Millisecond
)

var (
	gateway4 = netip.MustParseAddr("192.168.50.1")
	gateway6 = netip.MustParseAddr("fd50::1")
	free4    = netip.MustParseAddr("192.168.50.77")
	free6    = netip.MustParseAddr("fd50::77")
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// mustLab makes a switch with a trunk and a gateway for both families.
func mustLab(tb testing.TB) (*testenv.Lab, *testenv.Station) {
	tb.Helper()
	l := testenv.NewLab(tb, testenv.Config{})
	return l, l.AddGateway(0, gateway4.String()+"/24", gateway6.String()+"/64")
}

// A containerLink is a container's interface on the LAN as the hook makes it: up, and without an
// address.
type containerLink struct {
	*testenv.Namespace
	ifindex int
	mac     ether.MAC
}

// mustMacvlan makes a bridge-mode macvlan on the trunk in a namespace.
func mustMacvlan(tb testing.TB, l *testenv.Lab, in *testenv.Namespace, name string, mac ether.MAC) containerLink {
	tb.Helper()
	return mustMacvlanOn(tb, l, l.Trunk, in, name, mac)
}

func mustMacvlanOn(tb testing.TB, l *testenv.Lab, parent string, in *testenv.Namespace, name string,
	mac ether.MAC) containerLink {
	tb.Helper()
	on, err := l.Host.Netlink().LinkByName(parent)
	must(tb, err)
	ns, err := os.Open(in.Path())
	must(tb, err)
	defer ns.Close()
	must(tb, l.Host.Netlink().LinkAdd(&netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{
			Name: name, ParentIndex: on.Attrs().Index,
			HardwareAddr: mac.Hardware(), Namespace: netlink.NsFd(ns.Fd()),
		},
		Mode: netlink.MACVLAN_MODE_BRIDGE,
	}))
	link, err := in.Netlink().LinkByName(name)
	must(tb, err)
	must(tb, in.Netlink().LinkSetUp(link))
	return containerLink{in, link.Attrs().Index, mac}
}

func mustContainerLink(tb testing.TB, l *testenv.Lab) containerLink {
	tb.Helper()
	return mustMacvlan(tb, l, testenv.NewNamespace(tb, "container"), "lan0", ether.MAC{0x02, 0x42, 192, 168, 50, 2})
}

// addAddr adds an address to a link that is usable at once.
func addAddr(tb testing.TB, p containerLink, prefix string) {
	tb.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(tb, err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	link, err := p.Netlink().LinkByIndex(p.ifindex)
	must(tb, err)
	must(tb, p.Netlink().AddrAdd(link, a))
}

// neighbours returns the interface's neighbour entries by IP address.
func (p containerLink) neighbours(tb testing.TB) map[string]netlink.Neigh {
	tb.Helper()
	entries := map[string]netlink.Neigh{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := p.Netlink().NeighList(p.ifindex, family)
		must(tb, err)
		for _, n := range list {
			if !n.IP.IsMulticast() {
				entries[n.IP.String()] = n
			}
		}
	}
	return entries
}

// withEachProber runs a test with every prober, on a thread inside the link's namespace.
func withEachProber(t *testing.T, p containerLink, test func(t *testing.T, prober verify.Prober)) {
	t.Helper()
	for name, open := range probers {
		t.Run(name, func(t *testing.T) {
			p.do(t, func() error {
				prober, closeAll, err := open(p)
				if err != nil {
					return err
				}
				test(t, prober)
				return closeAll()
			})
		})
	}
}

// do runs a function inside the namespace. The function may call Errorf, but not FailNow.
func (p containerLink) do(tb testing.TB, f func() error) {
	tb.Helper()
	if err := p.Do(f); err != nil {
		tb.Error(err)
	}
}

// probers opens each kind of prober, and returns a function that closes it with everything it uses.
var probers = map[string]func(containerLink) (verify.Prober, func() error, error){
	"table": func(p containerLink) (verify.Prober, func() error, error) {
		t, err := probe.OpenTable(p.ifindex, p.mac, probe.SocketSender{})
		if err != nil {
			return nil, nil, err
		}
		return t, t.Close, nil
	},
	"socket": func(p containerLink) (verify.Prober, func() error, error) {
		s, err := probe.OpenSocket(p.ifindex, p.mac)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	},
}

// ask asks and expects an answer from each of the MACs, in any order.
func ask(t *testing.T, p verify.Prober, q verify.Question, want ...ether.MAC) {
	t.Helper()
	if err := p.Ask(q); err != nil {
		t.Error(err)
		return
	}
	missing := map[string]bool{}
	for _, mac := range want {
		missing[mac.String()] = true
	}
	deadline := time.Now().Add(answerTimeout)
	for len(missing) > 0 {
		a, err := p.Next(context.Background(), time.Second)
		if errors.Is(err, context.DeadlineExceeded) && time.Now().Before(deadline) {
			err = p.Ask(q) // a busy machine may lose a frame; a round repeats its questions too
			if err == nil {
				continue
			}
		}
		if err != nil {
			t.Errorf("%+v: no answer from %v: %v", q, missing, err)
			return
		}
		if a.Addr != q.Addr || a.At == 0 {
			t.Errorf("%+v: answer is %+v", q, a)
		}
		delete(missing, a.MAC.String())
	}
}

// askSilence asks and expects no answer.
func askSilence(t *testing.T, p verify.Prober, q verify.Question) {
	t.Helper()
	if err := p.Ask(q); err != nil {
		t.Error(err)
		return
	}
	if a, err := p.Next(context.Background(), silenceTime); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v: got %+v, %v; want silence", q, a, err)
	}
}
