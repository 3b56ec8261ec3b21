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

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// A site is a LAN with a gateway and one network.
type site struct {
	*testenv.Lab
	paths   wiring.Paths
	gateway *testenv.Station
	addrs   []netip.Addr
}

// subnet4 and subnet6 are a site's subnets, with the address of its gateway.
var (
	subnet4 = network.Subnet{Subnet: netip.MustParsePrefix("192.168.50.0/24"),
		Gateway: netip.MustParseAddr("192.168.50.1")}
	subnet6 = network.Subnet{Subnet: netip.MustParsePrefix("fd50::/64"), Gateway: netip.MustParseAddr("fd50::1")}
)

// newSite makes a LAN, and a network with the given subnets. The container requests address number
// 9 of each.
func newSite(tb testing.TB, mode verify.Mode, subnets ...network.Subnet) *site {
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
		must(tb, inHost(s.Lab, s.paths, func(ctx context.Context,
			l *wiring.Lanyard) error {
			return l.RemoveNetwork(ctx, "web")
		}))
	})
	return s
}

// TestClaimantWithoutGateway checks that a claimant in a family without a gateway, which belongs to
// no gateway's verdict but to the link's, prevents the start.
func TestClaimantWithoutGateway(t *testing.T) {
	alone := subnet6
	alone.Gateway = netip.Addr{}
	s := newSite(t, verify.Warn, subnet4, alone)
	s.AddClaimant(0, "fd50::9/64")
	if _, err := s.tryAttach(t); !conflictOver(err, "fd50::9") {
		t.Errorf("got %v, want the conflict over fd50::9", err)
	}
}

// tryAttach attaches a container, returns its verdict, and ends it.
func (s *site) tryAttach(t *testing.T) (v verify.Verdict, err error) {
	t.Helper()
	container := testenv.NewContainer(t)
	err = inHost(s.Lab, s.paths, func(ctx context.Context, l *wiring.Lanyard) error {
		got, err := l.Attach(ctx, hook.Request{Container: "c1", Name: "c1", Pid: container.Pid,
			Wants: []hook.Want{{Network: "web", Addrs: s.addrs}}})
		if err != nil {
			return err
		}
		v = got[0].Verdict
		return errors.Join(container.Kill(), l.Detach(ctx, "c1"))
	})
	container.End(t)
	return v, err
}

func conflictOver(err error, addr string) bool {
	var refusal *hook.Refusal
	return errors.As(err, &refusal) && refusal.Verdict.Code == verify.AddressConflict &&
		strings.Contains(refusal.Verdict.Text, addr)
}

// TestClaimantLeaves checks the wait for a container that has ended: it may answer for its address
// until the kernel has deleted its namespace. The next container with that address waits for it,
// but not for a container that stays. Because it has the same MAC, the wait is one second at first;
// here the deletion takes longer.
func TestClaimantLeaves(t *testing.T) {
	s := newSite(t, verify.Warn, subnet4, subnet6)
	if _, err := s.tryAttach(t); err != nil { // creates the database, so that none is rebuilt later
		t.Fatal(err)
	}
	const derived = "02:42:c0:a8:32:09" // the next container would have it, too
	last := testenv.NewContainer(t)
	_, err := s.Host.Exec("ip", strings.Fields("link add link "+s.Trunk+" name lan0 address "+derived+
		" netns "+last.Path()+" type macvlan mode bridge")...)
	must(t, err)
	for _, args := range []string{"addr add 192.168.50.9/24 dev lan0", "addr add fd50::9/64 dev lan0 nodad",
		"link set lan0 up"} {
		testenv.Eventually(t, "the MAC to be free", func() error {
			_, err := last.Exec("ip", strings.Fields(args)...)
			return err
		})
	}
	if _, err := s.tryAttach(t); !conflictOver(err, "50") {
		t.Errorf("with a container that stays: got %v, want a conflict", err)
	}
	gone := make(chan error, 1)
	time.AfterFunc(1500*time.Millisecond, func() {
		_, err := last.Exec("ip", "link", "del", "lan0")
		gone <- err
	})
	v, err := s.tryAttach(t)
	if err != nil || v.Code != verify.OK {
		t.Errorf("after a container that ended: got %+v, %v", v, err)
	}
	must(t, <-gone)
}
