package matrix

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/cmd/internal/wiring"
	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// A site is a LAN with a gateway, and one network on it.
type site struct {
	*testenv.Lab
	paths   wiring.Paths
	gateway *testenv.Station
	addrs   []netip.Addr
}

// subnet4 and subnet6 are a site's, each with the gateway that is there.
var (
	subnet4 = network.Subnet{Subnet: netip.MustParsePrefix("192.168.50.0/24"), Gateway: netip.MustParseAddr("192.168.50.1")}
	subnet6 = network.Subnet{Subnet: netip.MustParsePrefix("fd50::/64"), Gateway: netip.MustParseAddr("fd50::1")}
)

// newSite makes a LAN, and a network of the subnets given, in each of which a container
// asks for number 9.
func newSite(tb testing.TB, mode network.Verify, subnets ...network.Subnet) *site {
	tb.Helper()
	s := &site{Lab: testenv.NewLab(tb, testenv.Config{}), paths: wiring.PathsUnder(filepath.Join(tb.TempDir(), "root"))}
	for _, n := range subnets {
		a := n.Subnet.Addr().AsSlice()
		a[len(a)-1] = 9
		own, _ := netip.AddrFromSlice(a)
		s.addrs = append(s.addrs, own)
	}
	tb.Cleanup(func() { os.RemoveAll(s.paths.BPF) })
	s.gateway = s.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	def := &network.Definition{
		Name: "web", ID: network.NewID(), Driver: network.DriverMacvlan, Parent: s.Trunk, Mode: network.ModeBridge,
		Verify: mode, Subnets: subnets, MACFrom: network.MACFromAddress,
	}
	must(tb, inHost(s.Lab, s.paths, func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.CreateNetwork(ctx, def)
		return err
	}))
	tb.Cleanup(func() {
		must(tb, inHost(s.Lab, s.paths, func(ctx context.Context, l *wiring.Lanyard) error { return l.RemoveNetwork(ctx, "web") }))
	})
	return s
}

// A rival in a family without a gateway is nobody's verdict but the link's, and
// still refuses the start.
func TestRivalWithoutGateway(t *testing.T) {
	alone := subnet6
	alone.Gateway = netip.Addr{}
	s := newSite(t, network.VerifyWarn, subnet4, alone)
	s.AddClaimant(0, "fd50::9/64")
	if _, err := s.try(t); !conflictOver(err, "fd50::9") {
		t.Errorf("got %v, want the conflict over fd50::9", err)
	}
}

// try attaches a container that lives on, and gives its verdict.
func (s *site) try(t *testing.T) (v verify.Verdict, err error) {
	t.Helper()
	box := testenv.NewContainer(t)
	err = inHost(s.Lab, s.paths, func(ctx context.Context, l *wiring.Lanyard) error {
		got, err := l.Attach(ctx, hook.Request{Container: "c1", Name: "c1", Pid: box.Pid, Wants: []hook.Want{{Network: "web", Addrs: s.addrs}}})
		if err != nil {
			return err
		}
		v = got[0].Verdict
		return errors.Join(box.Kill(), l.Detach(ctx, "c1"))
	})
	box.End(t)
	return v, err
}

func conflictOver(err error, addr string) bool {
	var refusal *hook.Refusal
	return errors.As(err, &refusal) && refusal.Verdict.Code == verify.AddressConflict && strings.Contains(refusal.Verdict.Text, addr)
}

// A container that has ended may answer for its address until the kernel has taken
// its namespace down: the next one of that address waits for it, and for nobody who
// stays. For a second it is waited for since it has the MAC; here it takes longer.
func TestRivalLeaves(t *testing.T) {
	s := newSite(t, network.VerifyWarn, subnet4, subnet6)
	if _, err := s.try(t); err != nil { // and there is a database, which adopts nobody any more
		t.Fatal(err)
	}
	const derived = "02:42:c0:a8:32:09" // which the next one would have, too
	last := testenv.NewContainer(t)
	_, err := s.Host.Exec("ip", strings.Fields("link add link "+s.Trunk+" name lan0 address "+derived+" netns "+last.Path()+" type macvlan mode bridge")...)
	must(t, err)
	for _, args := range []string{"addr add 192.168.50.9/24 dev lan0", "addr add fd50::9/64 dev lan0 nodad", "link set lan0 up"} {
		testenv.Eventually(t, "the MAC to be free", func() error {
			_, err := last.Exec("ip", strings.Fields(args)...)
			return err
		})
	}
	if _, err := s.try(t); !conflictOver(err, "50") {
		t.Errorf("beside a container that stays: got %v, want a conflict", err)
	}
	gone := make(chan error, 1)
	time.AfterFunc(1500*time.Millisecond, func() {
		_, err := last.Exec("ip", "link", "del", "lan0")
		gone <- err
	})
	v, err := s.try(t)
	if err != nil || v.Code != verify.OK {
		t.Errorf("after a container that has gone: got %+v, %v", v, err)
	}
	must(t, <-gone)
}
